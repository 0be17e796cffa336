import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from featbench.cli.main import main


def test_without_a_comparison_there_is_nothing_to_open(tmp_path, capsys):
    assert main(["ui", "--home", str(tmp_path)]) == 2
    assert "run `featbench compare` first" in capsys.readouterr().err


def test_the_page_answers_and_knows_the_comparison(tmp_path):
    home = ["--home", str(tmp_path / "store")]
    assert main(["compare", "--features", "random", "--regimes", "R", "--draws", "1", "--quiet", *home]) == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "featbench", "ui", *home, "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        body = b'{"max_results": 5}'
        address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search"
        assert b"featbench digits" in ask(address, body)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def ask(address, body, tries=300):
    """Post to a server that may still be starting."""
    for _ in range(tries):
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read()
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{address} did not answer")
