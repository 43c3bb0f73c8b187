"""A substitute for `docker build` and `docker run` without a Docker engine: a chroot, with this machine as base image.

It executes the Dockerfile's instructions literally: RUN lines and programs have the image's folder, environment and
account. Only FROM is ignored, because this machine's own programs take the place of the base image. Run it as root:
`python docker_stand_in.py build -f FILE -t TAG CONTEXT`, `… run [--rm] [--env NAME=VALUE] TAG [COMMAND …]`. It stores
images below the folder in the variable IMAGES.
"""

import argparse
import json
import os
import shlex
import shutil
import string
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Prefixes of the variables by which pip reaches a package index; an engine passes them to a build, too.
REACHES = ("PIP_", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass
class Image:
    """An image's root folder, and the environment, folder, account and command with which its programs start."""

    root: str
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    command: list[str] = field(default_factory=list)

    def at(self, path: str) -> Path:
        """Where a path inside the image is on this machine."""
        return Path(self.root) / str(Path(self.workdir) / path).lstrip("/")

    def run(self, *command: str, user: str, **variables: str) -> int:
        """Run a command in the image, with its folder and only its environment. Returns the exit status."""
        self._mount()
        given = [f"{name}={value}" for name, value in {**self.environment, **variables}.items()]
        there = ["sh", "-c", f'cd {shlex.quote(self.workdir)} && exec "$@"', "sh", *command]
        chroot = ["chroot", f"--userspec={user}", self.root, "/usr/bin/env", "-i", *given, *there]
        return subprocess.run(chroot, check=False).returncode

    def _mount(self) -> None:
        """Bind-mount what the base image would provide. The mounts end with this process's mount namespace."""
        for name in ("usr", "bin", "sbin", "lib", "lib64", "dev", "proc", sys.base_prefix.lstrip("/")):
            here, there = Path("/") / name, Path(self.root) / name
            if here.is_symlink() and not there.is_symlink():
                there.symlink_to(here.readlink())
            elif here.is_dir() and not there.is_symlink() and not os.path.ismount(there):
                there.mkdir(parents=True, exist_ok=True)
                subprocess.run(["mount", "--rbind", str(here), str(there)], check=True)


def from_base(root: Path) -> Image:
    """A new image that holds only this machine's accounts, certificates and configuration, and Python as `python`."""
    (root / "tmp").mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copytree("/etc", root / "etc", symlinks=True)
    programs = root / "base"
    programs.mkdir()
    (programs / "python").symlink_to(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
    return Image(str(root), {"PATH": f"/base:{BASE_PATH}"})


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile in order, as pairs of the keyword and the rest of the line."""
    text = dockerfile.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def build(dockerfile: Path, image_folder: Path, context: Path) -> Image:
    """Execute the Dockerfile stage by stage, and return the last stage."""
    stages: dict[str, Image] = {}
    for number, (word, rest) in enumerate(instructions(dockerfile)):
        if word == "FROM":
            image = from_base(image_folder / str(number))
            stages[rest.rpartition(" ")[2]] = image
        elif word == "ENV":
            for name, _, value in (part.partition("=") for part in shlex.split(rest)):
                image.environment[name] = string.Template(value).substitute(image.environment)
        elif word == "WORKDIR":
            image.workdir = rest
            image.at("").mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            image.user = rest
        elif word == "RUN":
            run_line(rest, image)
        elif word == "COPY":
            copy(rest.split(), stages, image, context)
        elif word == "CMD":
            image.command = json.loads(rest)
    return image


def run_line(line: str, image: Image) -> None:
    """Execute a RUN instruction, with the variables by which pip reaches a package index."""
    reaches = {name: value for name, value in os.environ.items() if name.startswith(REACHES)}
    if status := image.run("sh", "-c", line, user=image.user, **reaches):
        sys.exit(f"RUN {line}: exit status {status}")


def copy(words: list[str], stages: dict[str, Image], image: Image, context: Path) -> None:
    """Execute a COPY instruction, from the context or another stage."""
    stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
    *sources, last = words
    for source in sources:
        path = stages[stage].at(source) if stage else context / source
        target = image.at(last) / path.name if last.endswith("/") else image.at(last)
        if path.is_dir():
            shutil.copytree(path, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, target)


def main() -> int:
    """Execute the command line, in a separate mount namespace."""
    own, parents = (Path(f"/proc/{process}/ns/mnt").readlink() for process in ("self", os.getppid()))
    if own == parents:
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    builder = verbs.add_parser("build")
    builder.add_argument("-f", dest="file", type=Path, required=True)
    builder.add_argument("-t", dest="tag", required=True)
    builder.add_argument("context", type=Path)
    runner = verbs.add_parser("run")
    runner.add_argument("--rm", action="store_true", required=True)
    runner.add_argument("--env", action="append", default=[])
    runner.add_argument("tag")
    runner.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    note = Path(os.environ["IMAGES"]) / f"{asked.tag}.json"
    if asked.verb == "build":
        note.write_text(json.dumps(asdict(build(asked.file, note.with_suffix(""), asked.context))))
        return 0
    image = Image(**json.loads(note.read_text()))
    variables = dict(variable.split("=", 1) for variable in asked.env)
    return image.run(*(asked.command or image.command), user=image.user, **variables)


if __name__ == "__main__":
    sys.exit(main())
