"""A real container registry and a real builder image for tests, from Debian's packages: no image is pulled from afar.

``docker-registry`` listens where the fixture's pods reach this machine; the builder image is the fixture's Python
image with Debian's ``buildah`` on top. Nothing is installed: packages are unpacked into a folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Self

from tests.live_airflow import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PACKAGES = (
    "buildah", "docker-registry", "golang-github-containers-common", "golang-github-containers-image", "libassuan0",
    "libdevmapper1.02.1", "libgpg-error0", "libgpgme11", "libseccomp2", "libselinux1", "libpcre2-8-0", "libudev1",
    "libcap2", "libsubid4", "uidmap",
)  # fmt: skip
BUILDER = "fixture.local/buildah:debian12"
BASE = "library/python:3.11"
ADDRESS = "10.244.0.1"
"""Where pods of the fixture reach this machine, once a first pod was started (``Cluster.connect``)."""

_CONFIG = """\
version: 0.1
log: {{accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "{address}"}}
"""
_POLICY = {"default": [{"type": "insecureAcceptAnything"}]}


class LiveRegistry:
    """A registry, with the fixture's Python image in it; the fixture's containerd may pull from it meanwhile.

    Args:
        folder: An empty folder.
        fixture: Where the fixture's scripts are (``mkimage.py``, ``blobs``).
        state: The fixture's state directory.
        port: Where to listen.
    """

    def __init__(self, folder: Path, fixture: Path, state: Path, port: int) -> None:
        self.host = f"{ADDRESS}:{port}"
        self.folder = folder
        self._fixture = fixture
        self._state = state
        self._root = folder / "root"
        # Containerd reads this folder anew for every pull; it has one for each registry.
        self._hosts = state / "config" / "registries" / self.host
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._unpack()
            self._serve()
            self._import_builder()
            self._push_base()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._hosts, ignore_errors=True)
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def tags(self, repository: str) -> list[str]:
        """Return the tags of a repository; none if it does not exist."""
        try:
            with urllib.request.urlopen(f"http://{self.host}/v2/{repository}/tags/list", timeout=10) as answer:
                return sorted(json.load(answer)["tags"] or [])
        except urllib.error.HTTPError:
            return []

    def forget(self, prefix: str) -> None:
        """Remove the images whose names begin with this from the fixture's containerd."""
        names = self._ctr("images", "ls", "-q").stdout.decode().split()
        for name in names:
            if name.startswith(prefix):
                self._ctr("images", "rm", name)

    def _unpack(self) -> None:
        debs = self.folder / "debs"
        debs.mkdir()
        # As the one user who may: apt's own user cannot write here, and says so.
        options = ["-qq", "-o", "APT::Sandbox::User=root"]
        try:
            _run("apt-get", *options, "download", *PACKAGES, cwd=debs)
        except subprocess.CalledProcessError:
            _run("apt-get", *options, "update")
            _run("apt-get", *options, "download", *PACKAGES, cwd=debs)
        for deb in debs.glob("*.deb"):
            _run("dpkg-deb", "-x", str(deb), str(self._root))
        # On top of an image in which /lib is a link, a folder of that name would hide all that it leads to.
        if (self._root / "lib").is_dir():
            shutil.copytree(self._root / "lib", self._root / "usr" / "lib", symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(self._root / "lib")
        shutil.rmtree(self._root / "usr" / "share" / "doc")
        (self._root / "etc" / "containers" / "policy.json").write_text(json.dumps(_POLICY))

    def _serve(self) -> None:
        config = self.folder / "registry.yml"
        config.write_text(_CONFIG.format(root=self.folder / "data", address=self.host))
        with (self.folder / "registry.log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._root / "usr/bin/docker-registry", "serve", config], stdout=log, stderr=log
            )
        eventually(self._answers, seconds=20, what=f"the registry (log: {log.name})")
        self._hosts.mkdir(exist_ok=True)
        url = f"http://{self.host}"
        (self._hosts / "hosts.toml").write_text(f'server = "{url}"\n[host."{url}"]\ncapabilities = ["pull", "resolve"]')

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.host}/v2/", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _import_builder(self) -> None:
        archive, base = self.folder / "builder.tar", self.folder / "base.tar"
        with base.open("wb") as target:
            packed = self._fixture / "blobs" / "image-python-3.11.tar.zst"
            subprocess.run(["zstd", "-dqc", str(packed)], stdout=target, check=True)
        image = [self._fixture / "mkimage.py", "--base", base, self._root, archive, BUILDER]
        _run(sys.executable, *map(str, image))
        self._ctr("images", "import", str(archive))

    def _push_base(self) -> None:
        containers = self._root / "etc" / "containers"
        storage = ["--root", self.folder / "storage", "--runroot", self.folder / "run", "--storage-driver", "vfs"]
        buildah = [self._root / "usr/bin/buildah", *storage, "--registries-conf", containers / "registries.conf"]
        policy = ["--signature-policy", containers / "policy.json"]
        env = os.environ | {"LD_LIBRARY_PATH": str(self._root / "usr/lib/x86_64-linux-gnu")}
        _run(*buildah, "pull", *policy, f"docker-archive:{self.folder / 'base.tar'}", env=env)
        target = ["--tls-verify=false", f"docker.io/{BASE}", f"docker://{self.host}/{BASE}"]
        _run(*buildah, "push", *policy, *target, env=env)

    def _ctr(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        address = str(self._state / "run" / "containerd.sock")
        return _run(str(self._state / "root/usr/bin/ctr"), "-a", address, "-n", "k8s.io", *words)


def _run(
    *words: Any, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(word) for word in words], cwd=cwd, env=env, check=True, capture_output=True)
