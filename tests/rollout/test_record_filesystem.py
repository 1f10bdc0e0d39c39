import pytest

from ekipl_rollout.errors import RecordError, SettingsError
from ekipl_rollout.record import Record
from ekipl_rollout.record import filesystem as fs
from ekipl_rollout.settings import EkiplSettings

ROOT = "27 1 254:0 / / rw,relatime - {} /dev/vda rw"


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """mounts(line, ...) -> a mountinfo that the package reads."""
    file = tmp_path / "mountinfo"

    def write(*lines):
        file.write_text("\n".join(lines) + "\n")
        monkeypatch.setattr(fs, "MOUNTINFO", file)
        return file

    return write


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "fuseblk", "fuse.fuse-overlayfs"])
def test_disks_of_this_machine_and_of_its_containers_are_local(mounts, kind):
    file = mounts(ROOT.format(kind))
    assert fs.file_system_of("/data/run", file) == kind
    assert fs.network_problem("/data/run", file) is None


@pytest.mark.parametrize(
    "kind",
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "lustre",
        "gpfs",
        "beegfs",
        "ceph",
        "fuse",
        "fuse.sshfs",
        "fuse.s3fs",
        "9p",
        "virtiofs",
    ],
)
def test_what_other_machines_can_have_mounted_is_refused_with_the_way_out(mounts, kind):
    file = mounts(ROOT.format("ext4"), f"40 27 0:40 / /data rw shared:1 master:2 - {kind} server:/x rw")
    problem = fs.network_problem("/data/run/records.sqlite", file)
    assert kind in problem
    assert "ekipl.record.path=" in problem
    assert "merge" in problem
    assert fs.network_problem("/database/records.sqlite", file) is None


def test_the_innermost_and_the_last_mount_counts(mounts):
    shared = "40 27 0:40 / /data rw - nfs4 server:/x rw"
    local = "41 40 8:1 / /data/scratch rw - xfs /dev/sdb rw"
    file = mounts(ROOT.format("ext4"), shared, local)
    assert fs.file_system_of("/data/scratch/r.sqlite", file) == "xfs"
    assert fs.file_system_of("/data/other/r.sqlite", file) == "nfs4"
    hidden = mounts(ROOT.format("ext4"), shared, "42 27 0:42 / /data rw - tmpfs tmpfs rw")
    assert fs.file_system_of("/data/r.sqlite", hidden) == "tmpfs"


def test_a_link_is_followed_to_where_the_file_really_lies(mounts, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    file = mounts(ROOT.format("ext4"), f"40 27 0:40 / {tmp_path}/far rw - nfs server:/x rw")
    assert fs.file_system_of(tmp_path / "near" / "r.sqlite", file) == "nfs"


def test_blanks_in_a_mount_point_are_read_as_the_kernel_writes_them(mounts):
    file = mounts(ROOT.format("ext4"), r"40 27 0:40 / /my\040data rw - cifs //server/x rw")
    assert fs.file_system_of("/my data/r.sqlite", file) == "cifs"


def test_where_nothing_is_known_nothing_is_refused(tmp_path):
    assert fs.network_problem("/data", tmp_path / "no such file") is None
    (tmp_path / "odd").write_text("hello\n\n1 2 3\n")
    assert fs.network_problem("/data", tmp_path / "odd") is None


def test_this_machines_own_folders_are_local(tmp_path):
    assert fs.network_problem(tmp_path) is None


def test_a_record_there_is_refused_before_anything_is_written(mounts, tmp_path):
    mounts(ROOT.format("ext4"), f"40 27 0:40 / {tmp_path}/far rw - lustre mds:/x rw")
    with pytest.raises(RecordError, match="lustre"):
        Record(tmp_path / "far" / "r.sqlite")
    assert not (tmp_path / "far").exists()


def test_the_settings_refuse_it_too_before_a_run_starts(mounts, tmp_path):
    mounts(ROOT.format("ext4"), f"40 27 0:40 / {tmp_path}/far rw - nfs4 server:/x rw")
    block = {"record": {"path": f"{tmp_path}/far/r.sqlite"}}
    with pytest.raises(SettingsError, match="nfs4"):
        EkiplSettings.from_config(block)
    EkiplSettings.from_config({"record": {**block["record"], "mode": "off"}})
