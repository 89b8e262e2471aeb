"""What the report shows of body mesh recovery."""

from tcformer.tables import Headline, Metrics, Table, group_rows, headline

TITLE = "Body mesh"
DRAWN = "the predicted body"
PART_MEASURE = "MPJPE of each test set in mm (less is better)"


def headlines(metrics: Metrics | None) -> list[Headline]:
    """Errors on the first test set beside those of the mean body."""
    test_set = next(iter(metrics)) if metrics else ""
    return [
        headline(
            metrics,
            (test_set, measure),
            task="body mesh",
            name=f"{name} in mm, {test_set} (less is better)",
            baseline_name="mean body",
            short=f"mesh/{name}",
        )
        for name, measure in (("MPJPE", "mpjpe"), ("PA-MPJPE", "pa_mpjpe"))
    ]


def tables(metrics: Metrics | None) -> list[Table]:
    """Errors of the 14 joints in millimetres, of each test set."""
    return [
        Table(
            "Body mesh by test set",
            ("test set", "people", "MPJPE", "PA-MPJPE"),
            group_rows(metrics, ("count", "mpjpe", "pa_mpjpe")),
            digits=1,
            note="Millimetres. MPJPE: joints relative to the pelvis; PA: after the best similarity transform.",
        )
    ]
