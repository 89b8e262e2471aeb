"""What the report shows of the user's own keypoints."""

from tcformer.tables import Headline, Metrics, Table, headline

TITLE = "Own keypoints"
DRAWN = "the predicted points over the annotated ones in white"
PART_MEASURE = "NME of all points and of each group (less is better)"

_MEASURES = ("AP", "AP50", "AP75", "APM", "APL", "AR")
_NOTE = (
    "AP, AR: mean over OKS thresholds 0.50 to 0.95, with the sigmas of the dataset, in annotated boxes. M, L: objects "
    "of 32² to 96² pixels, and larger."
)


def headlines(metrics: Metrics | None) -> list[Headline]:
    """AP, mean OKS and, if the dataset names a unit, NME, beside those of the mean pose."""
    rows = [("AP", ("all", "AP"), "keypoints/AP"), ("mean OKS", ("oks",), "keypoints/OKS")]
    if metrics is not None and "nme" in metrics:
        rows.append(("NME (less is better)", ("nme",), "keypoints/NME"))
    return [
        headline(metrics, keys, task="own keypoints", name=name, baseline_name="mean pose", short=short)
        for name, keys, short in rows
    ]


def tables(metrics: Metrics | None) -> list[Table]:
    """AP and AR, from the result of `tcformer.metrics.keypoints.evaluate_keypoints`."""
    values = {} if metrics is None else metrics.get("all", {})
    row = ("all points", *("none" if values.get(name) is None else values[name] for name in _MEASURES))
    note = f"{_NOTE} none: the annotations hold no such object." if "none" in row else _NOTE
    return [Table("Own keypoints", ("points", *_MEASURES), (row,) if values else (), note=note)]
