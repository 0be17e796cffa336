from featbench.cli.main import main


def test_publish_then_render(tmp_path, capsys):
    store, boards = ["--home", str(tmp_path / "store")], ["--leaderboards", str(tmp_path / "boards")]
    assert main(["compare", "--features", "random", "--regimes", "R", "--quiet", "--no-track", *store]) == 0
    assert main(["leaderboard", "publish", "--protocol", "digits", "--allow-dirty", *store, *boards]) == 0
    assert main(["leaderboard", "render", *boards]) == 0
    assert "random" in (tmp_path / "boards" / "digits" / "README.md").read_text()
    assert (tmp_path / "boards" / "digits" / "results.csv").is_file()


def test_an_empty_store_has_nothing_to_publish(tmp_path, capsys):
    home = ["--home", str(tmp_path / "store"), "--leaderboards", str(tmp_path / "boards")]
    assert main(["leaderboard", "publish", "--protocol", "digits", *home]) == 2
    assert "no complete results of digits" in capsys.readouterr().err


def test_rendering_without_leaderboards_says_how_to_make_one(tmp_path, capsys):
    assert main(["leaderboard", "render", "--leaderboards", str(tmp_path)]) == 2
    assert "publish" in capsys.readouterr().err
