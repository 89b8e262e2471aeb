"""What the report shows of whole-body pose."""

from tcformer.tables import Headline, Metrics, Table, headline

TITLE = "Whole-body pose"
DRAWN = "the predicted points over the annotated ones in white"
PART_MEASURE = "AP of each part"

_PARTS = {
    "body": "body",
    "foot": "foot",
    "face": "face",
    "lefthand": "left hand",
    "righthand": "right hand",
    "hand": "hands",
    "wholebody": "whole body",
}
_MEASURES = ("AP", "AP50", "AP75", "APM", "APL", "AR")
_NOTE = (
    "AP, AR: mean over OKS thresholds 0.50 to 0.95. M, L: persons of 32² to 96² pixels, and larger. "
    "Hands: the mean of left and right, as published."
)


def headlines(metrics: Metrics | None) -> list[Headline]:
    """AP of the body, its other parts and all points, and mean OKS, beside those of the mean pose."""
    return [
        headline(metrics, keys, task="whole-body pose", name=name, baseline_name="mean pose", short=short)
        for name, keys, short in (
            ("body AP", ("body", "AP"), "body/AP"),
            *((f"{part} AP", (part, "AP"), "") for part in ("foot", "face", "hand")),
            ("whole-body AP", ("wholebody", "AP"), "wholebody/AP"),
            ("mean OKS, 133 points", ("oks",), "wholebody/OKS"),
        )
    ]


def tables(metrics: Metrics | None) -> list[Table]:
    """AP and AR of the parts that were measured, from the result of `tcformer.metrics.evaluate_wholebody`.

    A measure is None there if the annotations contain no person of that size or with that part; the table says so.
    """
    measured = {} if metrics is None else {part: metrics[part] for part in _PARTS if part in metrics}
    values = {part: [of_part.get(measure) for measure in _MEASURES] for part, of_part in measured.items()}
    nobody = any(None in row for row in values.values())
    rows = tuple((_PARTS[part], *("none" if v is None else v for v in row)) for part, row in values.items())
    note = f"{_NOTE} none: the annotations hold no such person." if nobody else _NOTE
    return [Table("Whole-body pose by part", ("part", *_MEASURES), rows, note=note)]
