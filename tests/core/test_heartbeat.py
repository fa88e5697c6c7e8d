from benchrunner.core.heartbeat import COUNT, Heartbeat, read_beat, read_progress


def test_steps_are_counted_across_processes(tmp_path):
    heart = Heartbeat(tmp_path / "beat0")
    assert read_beat(tmp_path / "beat0") == 0
    for _ in range(3):
        heart.beat()
    assert read_beat(tmp_path / "beat0") == heart.count == 3


def test_drawn_data_are_progress_and_no_step(tmp_path):
    heart = Heartbeat(tmp_path / "beat0")
    heart.drew()
    heart.beat()
    heart.drew()
    assert (read_beat(tmp_path / "beat0"), read_progress(tmp_path / "beat0")) == (1, 3)
    (tmp_path / "older").write_bytes(COUNT.pack(7))
    assert read_beat(tmp_path / "older") == read_progress(tmp_path / "older") == 7


def test_nobody_has_begun_to_count(tmp_path):
    (tmp_path / "beat0").write_bytes(b"\x01")
    assert read_beat(tmp_path / "beat0") == read_beat(tmp_path / "absent") == 0


def test_a_place_that_cannot_be_written_is_no_reason_to_fail(tmp_path):
    heart = Heartbeat(tmp_path / "absent" / "beat0")
    heart.beat()
    assert heart.count == 1
