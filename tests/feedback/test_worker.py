"""What the feedback worker promises, on a real broker and a real Redis: every event counts once, whatever happens."""

import random

import pytest

from feedback.feedback_stage import FeedbackStage, make_events


@pytest.fixture
def stage(tmp_path):
    with FeedbackStage(tmp_path) as running:
        yield running


def test_counts_equal_a_recount_of_the_log_with_repeats_shuffles_late_and_bad_events(stage):
    draw = random.Random(1)
    stage.publish(make_events(draw, 400))
    worker = stage.worker()

    stage.until_applied()

    assert stage.differences() == []
    assert worker.stop() == 0
