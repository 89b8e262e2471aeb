"""What the report shows of face landmarks."""

from tcformer.tables import Headline, Metrics, Table, group_rows, headline

TITLE = "Face landmarks"
DRAWN = "the predicted points over the annotated ones in white"
PART_MEASURE = "NME of the test set and of its subsets (less is better)"


def headlines(metrics: Metrics | None) -> list[Headline]:
    """NME on the full test set beside that of the mean shape."""
    name = "NME (less is better)"
    return [
        headline(
            metrics, ("full", "NME"), task="face landmarks", name=name, baseline_name="mean shape", short="face/NME"
        )
    ]


def tables(metrics: Metrics | None) -> list[Table]:
    """NME, failure rate and AUC on the full test set and its subsets, from `tcformer.metrics.evaluate_face`."""
    return [
        Table(
            "Face landmarks by attribute",
            ("subset", "faces", "NME", "FR@10%", "AUC@10%"),
            group_rows(metrics, ("count", "NME", "FR10", "AUC10")),
            note="NME: mean distance of the 98 points over the distance between the outer eye corners.",
        )
    ]
