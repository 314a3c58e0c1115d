"""`sparring tensorboard`: on this machine alone, with pictures kept, on a port that is free."""

import socket

import pytest

from sparring.cli.tensorboard import tensorboard
from sparring.errors import UserError

pytestmark = pytest.mark.long


def test_the_command_keeps_to_this_machine_and_keeps_pictures(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = tensorboard([str(tmp_path), "--port", str(port), "--reload_interval", "5"])
    words = " ".join(command[1:])
    assert f"-m tensorboard.main --logdir {tmp_path} --host 127.0.0.1 --port " in words
    assert f"--port {port} " not in words
    assert "--samples_per_plugin images=200,text=100 --reload_interval 5" in words


@pytest.mark.parametrize("flags", [["--bind_all"], ["--host", "0.0.0.0"], ["--host=0.0.0.0"]])
def test_others_are_not_let_in(tmp_path, flags):
    with pytest.raises(UserError, match="knows no passwords"):
        tensorboard([str(tmp_path), *flags])
    with pytest.raises(UserError, match="nowhere: there is no such folder"):
        tensorboard(["nowhere"])
