# SPDX-License-Identifier: GPL-2.0-or-later
"""ansible/ applied to the virtual lab host, over ssh as to any other machine."""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import proc
from harness.labhost.host import LabHost

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("labhost"),
    pytest.mark.skipif(not shutil.which("ssh"), reason="ansible's connection is OpenSSH's client"),
]

ANSIBLE = Path(__file__).resolve().parents[2] / "ansible"
PLAYBOOK_TIMEOUT_S = 600
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA lab"
INVENTORY = """\
all:
  children:
    td_hosts:
      hosts:
        lab-host:
          ansible_host: 127.0.0.1
          ansible_port: {host.ssh_port}
          ansible_user: root
          ansible_ssh_private_key_file: {host.key_path}
          ansible_ssh_common_args: >-
            -F none -o UserKnownHostsFile={host.known_hosts} -o StrictHostKeyChecking=yes
            -o IdentitiesOnly=yes
          # it has no TDX, and no package that is not in its image
          tdx_host_required: false
          libvirt_host_firmware: []
          tdx_host_hugepages: 16
          tdx_host_users:
            - name: lab
              public_key: {key}
          libvirt_host_users: [lab]
"""
# The machine of nights, in place of the group of INVENTORY.
RUNNER = """\
          runner_repository: /srv/tdharness.git
          runner_nights:
            - name: dma
              config: {directory}/dma.toml
              patches: {directory}/dma/
              calendar: "*-*-* 21:00"
"""
# A repository whose setup needs no network: its environment is real, its tdharness says who it is.
REPOSITORY = """\
set -eu
git config --system safe.directory '*'
git init --quiet --initial-branch=main /srv/work && cd /srv/work && mkdir harness
cat >harness/bootstrap <<'TEXT'
#!/bin/sh
set -eu
test "$*" = setup
mkdir -p "$TDHARNESS_CACHE"
cd "$(dirname "$0")/.." && python3 -m venv --without-pip .venv
printf '#!/bin/sh\\necho "$(id -un) $PWD $TDHARNESS_CACHE: $*"\\n' >.venv/bin/tdharness
chmod +x .venv/bin/tdharness
TEXT
chmod +x harness/bootstrap && echo .venv >.gitignore && git add .
git -c user.name=lab -c user.email=lab@example.org commit --quiet --message=start
git clone --quiet --bare /srv/work /srv/tdharness.git
"""


@dataclass(frozen=True)
class Play:
    """What a run of the playbook said."""

    counts: dict[str, int]
    output: str


class Controller:
    """The machine that ansible runs on."""

    def __init__(self, host: LabHost, directory: Path) -> None:
        self.inventory = directory / "hosts.yml"
        self.words = INVENTORY.format(host=host, key=PUBLIC_KEY)
        self.inventory.write_text(self.words)
        self.home = directory

    def make_it_a_runner(self) -> None:
        """The lab host runs nights, and no TDs."""
        more = RUNNER.format(directory=self.home)
        self.inventory.write_text(self.words.replace("td_hosts:", "runners:") + more)

    def play(self, *options: str) -> Play:
        """Run site.yml to its end."""
        argv = ["ansible-playbook", "-i", os.fspath(self.inventory), *options, "site.yml"]
        result = ansible(argv, self.home)
        words = re.findall(r"^lab-host\s+:(.*)$", result.stdout, re.MULTILINE)
        assert words, result.stdout + result.stderr
        counts = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", words[-1])}
        assert not counts["failed"] and not counts["unreachable"], result.stdout
        return Play(counts, result.stdout)


def ansible(argv: Sequence[str], home: Path, cwd: Path = ANSIBLE) -> proc.Result:
    """One of ansible's programs, with nothing of this machine's configuration."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": os.fspath(home), "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"}
    program = Path(sys.executable).with_name(argv[0])
    # The path of a socket has 107 characters at most; a test's own directory can be longer.
    with tempfile.TemporaryDirectory(prefix="cp-", dir="/tmp") as sockets:
        return proc.run(
            [program, *argv[1:]],
            timeout_s=PLAYBOOK_TIMEOUT_S,
            cwd=cwd,
            env=env | {"ANSIBLE_SSH_CONTROL_PATH_DIR": sockets},
            check=False,
        )


@pytest.fixture
def controller(own_lab_host: LabHost, tmp_path: Path) -> Controller:
    return Controller(own_lab_host, tmp_path)


def test_settings_are_written_once(own_lab_host: LabHost, controller: Controller) -> None:
    assert controller.play("--tags", "settings").counts["changed"] == 2  # with the handler
    assert own_lab_host.run("cat", "/proc/sys/vm/nr_hugepages").stdout.strip() == "16"
    again = controller.play("--tags", "settings")
    assert again.counts["changed"] == 0, again.output

    # What would it be worth if it never saw a change?
    own_lab_host.run("sed", "-i", "s/16/8/", "/etc/sysctl.d/60-tdx-host.conf")
    mended = controller.play("--tags", "settings", "--diff")
    assert mended.counts["changed"] == 2, mended.output
    assert "+vm.nr_hugepages = 16" in mended.output


@pytest.mark.nightly
def test_the_roles_make_a_host_and_then_change_nothing(
    own_lab_host: LabHost, controller: Controller
) -> None:
    def said(command: str) -> str:
        return own_lab_host.run("sh", "-c", command).stdout.strip()

    would = controller.play("--check")
    assert would.counts["changed"] > 0
    assert said("getent passwd lab; ls /etc/modprobe.d/tdx-host.conf") == ""

    assert controller.play().counts["changed"] > 0
    assert said("cat /proc/sys/vm/nr_hugepages") == "16"
    assert "options kvm_intel tdx=1" in said("cat /etc/modprobe.d/tdx-host.conf")
    assert "nohibernate" in said("cat /etc/default/grub.d/tdx-host.cfg")
    assert said("cat ~lab/.ssh/authorized_keys") == PUBLIC_KEY
    assert {"kvm", "libvirt"} <= set(said("id -Gn lab").split())
    assert said("systemctl is-active rasdaemon libvirtd.socket").split() == ["active", "active"]

    again = controller.play()
    assert again.counts["changed"] == 0, again.output
    assert "no TDX" in again.output


@pytest.mark.nightly
def test_the_runner_s_role_makes_a_night_and_then_changes_nothing(
    own_lab_host: LabHost, controller: Controller
) -> None:
    def said(command: str) -> str:
        answer = own_lab_host.run("sh", "-c", command)
        assert not answer.rc, answer
        return answer.stdout.strip()

    said(REPOSITORY)
    (controller.home / "dma.toml").write_text('name = "dma"\n')
    (controller.home / "dma").mkdir()
    (controller.home / "dma" / "0001-a.patch").write_text("a patch\n")
    controller.make_it_a_runner()
    assert controller.play().counts["changed"] > 0
    enabled = "systemctl is-enabled tdharness-nightly@dma.timer tdharness-resume@dma.service"
    assert said(enabled).split() == ["enabled", "enabled"]
    timer = said("systemctl show --property=TimersCalendar tdharness-nightly@dma.timer")
    assert "OnCalendar=*-*-* 21:00:00" in timer
    assert said("cd /var/lib/tdharness/dma && cat nightly.toml *.patch") == 'name = "dma"\na patch'
    # The night, as its timer starts it.
    said("systemctl start tdharness-nightly@dma.service")
    told = said("journalctl --quiet --output=cat --unit tdharness-nightly@dma.service")
    home = "/var/lib/tdharness"
    assert f"tdharness {home}/dma {home}/cache: nightly nightly.toml --runs runs" in told

    again = controller.play()
    assert again.counts["changed"] == 0, again.output
    # A new version is fetched and set up.
    said("cd /srv/work && echo >new && git add . && "
         "git -c user.name=lab -c user.email=lab@example.org commit -qm new && "
         "git push -q /srv/tdharness.git main")  # fmt: skip
    assert controller.play().counts["changed"] == 2


def test_a_host_without_tdx_is_refused(controller: Controller) -> None:
    argv = [
        "ansible-playbook",
        "-i",
        os.fspath(controller.inventory),
        "-e",
        "tdx_host_required=yes",
    ]
    result = ansible([*argv, "--tags", "check", "site.yml"], controller.home)
    assert result.returncode == 2
    assert "no TDX: the processor lacks it" in result.stdout
    assert "see the task before" in result.stdout


def test_another_host_key_stops_it(own_lab_host: LabHost, controller: Controller) -> None:
    lines = own_lab_host.known_hosts.read_text()
    own_lab_host.known_hosts.write_text(lines.replace(own_lab_host.image.host_key, PUBLIC_KEY))
    argv = [
        "ansible",
        "-i",
        os.fspath(controller.inventory),
        "td_hosts",
        "-m",
        "ansible.builtin.raw",
    ]
    result = ansible([*argv, "-a", "true"], controller.home)
    assert result.returncode
    assert "verification failed" in result.stdout + result.stderr
