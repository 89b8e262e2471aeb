"""What the report shows of classification."""

from tcformer.tables import Headline, Metrics, Table, headline

TITLE = "Classification"
DRAWN = "above each row the predicted class, its probability and, if that is wrong, the true class"


def headlines(metrics: Metrics | None) -> list[Headline]:
    """Accuracy beside that of guessing."""
    return [
        headline(metrics, ("top1",), task="classification", name="top-1", baseline_name="chance", short="imagenet/top1")
    ]


def tables(metrics: Metrics | None) -> list[Table]:
    """No table: the headline is the only measure."""
    return []
