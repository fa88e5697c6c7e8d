import os

from benchrunner.worker.parent import stand_somewhere


def test_a_process_whose_folder_has_gone_stands_somewhere_else(tmp_path, monkeypatch):
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    stand_somewhere()
    assert os.getcwd() == str(place)
    place.rmdir()
    stand_somewhere()
    assert os.getcwd() == "/"
