"""``rescue mysql``: real data directories, clean and crashed, to dumps that load elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli import Redkeep, Told
from tests.rescue import databases, disks
from tests.rescue.databases import CHECKSUMS, mariadb, same_in


@pytest.fixture
def run(tmp_path: Path) -> Redkeep:
    disks.need("mariadbd", "mariadb-dump")
    return Redkeep(tmp_path, timeout=500)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return databases.old("clean", tmp_path_factory.mktemp("clean") / "mysql")


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return databases.old("crashed", tmp_path_factory.mktemp("crashed") / "mysql")


def tables(told: Told) -> dict[str, dict[str, Any]]:
    return {t["name"]: t for schema in told.json["schemas"] for t in schema["tables"]}


def listing(top: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.lstat().st_size, p.lstat().st_mtime_ns) for p in top.rglob("*")}


def test_a_clean_directory_comes_back_exactly(run: Redkeep, clean: Path, tmp_path: Path) -> None:
    before = listing(clean)
    told = run("rescue", "mysql", str(clean), "--out", "dump", "--json").ok()
    assert listing(clean) == before
    assert told.json["complete"]
    assert told.json["innodb_force_recovery"] == 0
    assert {n: t["checksum_table"] for n, t in tables(told).items()} == CHECKSUMS
    assert {n: t["rows"] for n, t in tables(told).items()} == {"t": 32768, "g": 1, "m": 2, "c": 512}
    dump = tmp_path / "dump"
    assert not (dump / "work").exists()
    assert {stat.S_IMODE(p.stat().st_mode) for p in dump.rglob("*") if p.is_file()} == {0o600}

    main = (dump / "data/shop.sql").read_text()
    for word in ("DEFINER", "TRIGGER", "PROCEDURE", "CREATE VIEW", "DROP TABLE"):
        assert word not in main
    assert "DEFINER=`root`@`%` trigger tr" in (dump / "code/shop.triggers.sql").read_text()
    assert "PROCEDURE `p`()" in (dump / "code/shop.routines.sql").read_text()
    assert "VIEW `shop`.`v`" in (dump / "code/shop.views.sql").read_text()
    secret = "*D821809F681A40A6E379B50D0463EFAE20BDD122"
    assert secret in (dump / "accounts.sql").read_text()
    assert secret not in told.everything + (dump / "rescue.json").read_text() + main

    with mariadb(tmp_path / "fresh") as server:
        same_in(server, dump)
        assert server.sql("SELECT x FROM shop.g") == "中文订单\n"
        server.sql("UPDATE shop.c SET t_id = NULL WHERE id = 1")
        asked = server.sql((dump / "verify.sql").read_bytes())
        assert asked != (dump / "verify.expected").read_text(), "one changed value is noticed"
        for kind in ("views", "triggers"):
            server.sql((dump / f"code/shop.{kind}.sql").read_bytes())
        assert server.sql("SELECT * FROM shop.v") == "32768\n"

    again = run("rescue", "mysql", str(clean), "--out", "dump", "--json").ok()
    assert again.json["again"]
    assert again.json["schemas"] == told.json["schemas"]
    (dump / "data/shop.sql").write_text("")
    run("rescue", "mysql", str(clean), "--out", "dump").error(1, "data/shop.sql", "--again")


def test_a_crashed_directory_is_called_partial(run: Redkeep, crashed: Path, tmp_path: Path) -> None:
    told = run("rescue", "mysql", str(crashed), "--out", "dump", "--json")
    assert told.status == 1, told.everything
    document = told.json
    assert not document["complete"]
    assert document["innodb_force_recovery"] == 6
    assert "Upgrade after a crash" in document["refused"][0]["why"]
    found = tables(told)
    assert {n: t["state"] for n, t in found.items()} == {
        "g": "exact",
        "c": "uncertain",
        "m": "uncertain",
        "t": "incomplete",
    }
    assert found["g"]["checksum_table"] == CHECKSUMS["g"]
    assert "after the last checkpoint" in found["c"]["why"]
    assert "corrupt" in found["t"]["why"]
    dump = tmp_path / "dump"
    assert "CREATE TABLE `t`" not in (dump / "data/shop.sql").read_text()
    with mariadb(tmp_path / "fresh") as server:
        same_in(server, dump)
        server.sql((dump / "uncertain/shop.sql").read_bytes())
        assert int(server.sql("SELECT COUNT(*) FROM shop.t")) > 40_000
        assert server.sql("SELECT COUNT(*) FROM shop.c") == "512\n"
    words = run("rescue", "mysql", str(crashed), "--out", "dump")
    assert words.status == 1
    assert "hint: run it again with --mysqld" in words.stdout
    assert "PARTIAL: of 4 tables 1 exact, 2 uncertain, 1 incomplete" in words.stdout


ODD = ["a'b\"c`d", "new\nline", "per%cent %s", "-dash", "表", "sp ace", "A\\b"]


def made(folder: Path, *, killed: bool) -> Path:
    """A directory of this machine's own MariaDB, whose names and values are as odd as they can be."""
    with mariadb(folder) as server:
        server.stop()  # one that was killed as soon as it was made does not start again by itself either
        server.start()
        server.sql("CREATE DATABASE `o-dd.``%s` DEFAULT CHARACTER SET latin1")
        for number, name in enumerate(ODD):
            quoted = "`o-dd.``%s`.`" + name.replace("`", "``") + "`"
            server.sql(
                f"CREATE TABLE {quoted} (i INT, f FLOAT, d DOUBLE, n DECIMAL(20,5), b BIT(11), y YEAR, x VARBINARY(300),"
                "g TEXT CHARACTER SET gbk, e ENUM('a','b'), s SET('a','b'), w TIMESTAMP(6) NULL, l LONGBLOB, p POINT,"
                "v INT AS (i + 1) VIRTUAL) "
                f"ENGINE={'MyISAM' if number % 2 else 'InnoDB'};"
                f"INSERT INTO {quoted} (i,f,d,n,b,y,x,g,e,s,w,l,p) VALUES "
                "(1,1.1,1e300,12345.6789,b'10101010101',2024,X'00FF0A0D1A275C','中文',1,'a,b','2024-03-31 02:30:00.123456',"
                "REPEAT(X'00',3000000),POINT(1,2)),(NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);"
            )
        server.sql(
            "CREATE DATABASE empty; CREATE TABLE `o-dd.``%s`.parts (i INT PRIMARY KEY) PARTITION BY HASH(i) PARTITIONS 3;"
            "USE `o-dd.``%s`; INSERT INTO parts SELECT seq FROM seq_1_to_1000"
        )
        server.kill() if killed else server.stop()
    return folder / "data"


@pytest.mark.parametrize("killed", [False, True])
def test_odd_names_and_every_kind_of_value(run: Redkeep, tmp_path: Path, killed: bool) -> None:
    """After kill -9 the server's own recovery, on the copy, brings all of InnoDB back."""
    data = made(tmp_path / "victim", killed=killed)
    told = run("rescue", "mysql", str(data), "--out", "dump", "--json")
    found = tables(told)
    assert set(found) == {*ODD, "parts"}, told.everything
    assert told.json["innodb_force_recovery"] == 0
    exact = {n for n, t in found.items() if t["state"] == "exact"}
    assert exact >= {"parts", *ODD[::2]}, told.everything
    assert killed or exact == set(found), told.everything
    with mariadb(tmp_path / "fresh") as server:
        same_in(server, tmp_path / "dump")
        assert server.sql("SELECT COUNT(*), SUM(i) FROM `o-dd.``%s`.parts") == "1000\t500500\n"


def test_an_image_that_is_cut_costs_what_was_behind_the_cut(
    run: Redkeep, clean: Path, tmp_path: Path
) -> None:
    """Files that cannot be read to their end: their tables are not called exact, and the others are dumped all the same."""
    top = tmp_path / "top"
    (top / "etc").mkdir(parents=True)
    shutil.copytree(clean, top / "var/lib/mysql")
    image = disks.ext4(top, tmp_path / "disk", 96 * disks.MIB, "-b", "4096")
    placed = disks.run("debugfs", "-R", "blocks /var/lib/mysql/shop/t.ibd", image).split()
    os.truncate(image, int(placed[len(placed) * 2 // 3]) * 4096)
    told = run("rescue", "mysql", str(image), "--out", "dump", "--json")
    assert told.status == 1, told.everything
    found = tables(told)
    assert {n for n, t in found.items() if t["state"] == "exact"} == {"c", "g", "m"}, told.everything
    assert found["t"]["state"] in ("uncertain", "incomplete", "lost")
    assert "t.ibd: " not in json.dumps(found)
    left = {one["what"]: one["why"] for one in told.json["left_out"]}
    assert "cannot be read" in left["/var/lib/mysql/shop/t.ibd"]


def test_settings_that_its_files_need(run: Redkeep, tmp_path: Path) -> None:
    """Debian has them in directories: without the size of its pages no server reads the files. Secrets are not told."""
    root = tmp_path / "root"
    victim = root / "var/lib"
    with mariadb(victim, "--innodb-page-size=8k") as server:
        server.sql(
            "CREATE DATABASE shop; CREATE TABLE shop.t (i INT) ENGINE=InnoDB; INSERT INTO shop.t VALUES (1), (2);"
        )
        server.stop()
    (victim / "data").rename(victim / "mysql")
    settings = root / "etc/mysql/mariadb.conf.d"
    settings.mkdir(parents=True)
    (settings / "50-server.cnf").write_text(
        "[mysqld]\ninnodb_page_size = 8k\nwsrep_sst_auth = sst:hidden-word\n"
    )
    told = run("rescue", "mysql", str(root), "--out", "dump", "--json")
    assert (tables(told)["t"]["state"], tables(told)["t"]["rows"]) == ("exact", 2), told.everything
    assert "hidden-word" not in run("rescue", "inspect", str(root), "--json").stdout


def test_an_old_server_recovers_what_a_new_one_refuses(run: Redkeep, crashed: Path, tmp_path: Path) -> None:
    """With a MySQL 5.5 or 5.6, which no package has any more: OLD_MYSQLD is the path of its mysqld."""
    mysqld = os.environ.get("OLD_MYSQLD", "")
    if not mysqld:
        pytest.skip("needs OLD_MYSQLD=/path/to/mysqld of MySQL 5.5 or 5.6")
    told = run("rescue", "mysql", str(crashed), "--out", "dump", "--mysqld", mysqld, "--json")
    found = tables(told)
    assert told.json["recovered_by"]["version"].startswith("5."), told.everything
    assert {n: t["state"] for n, t in found.items()} == {
        "c": "exact",
        "g": "exact",
        "m": "uncertain",
        "t": "exact",
    }
    assert found["t"]["checksum_table"] == CHECKSUMS["t"]
    with mariadb(tmp_path / "fresh") as server:
        same_in(server, tmp_path / "dump")


def test_whatever_leads_out_of_the_evidence_is_not_followed(
    run: Redkeep, clean: Path, tmp_path: Path
) -> None:
    """Links to this host's database files, and InnoDB's own kind of links."""
    host = tmp_path / "host/private"
    shutil.copytree(clean / "shop", host)
    victim = tmp_path / "disk"
    shutil.copytree(clean, victim / "var/lib/mysql")
    data = victim / "var/lib/mysql"
    (data / "away").symlink_to(host)
    (data / "shop/g.ibd").unlink()
    (data / "shop/g.ibd").symlink_to(host / "g.ibd")
    (data / "shop/x.isl").write_text(f"{host}/t.ibd\n")
    (data / "more.sym").write_text(f"{host}/\n")
    os.mkfifo(data / "shop/pipe.ibd")
    (victim / "srv/moved").mkdir(parents=True)
    (data / "shop/t.ibd").rename(victim / "srv/moved/t.ibd")
    (data / "shop/t.ibd").symlink_to("/srv/moved/t.ibd")  # inside: as an administrator does it
    (data / "ib_strange\xff.frm").touch()
    (data / os.fsdecode(b"shop/o\xffdd.frm")).write_bytes(b"\xfe\x01" + bytes(100))
    told = run("rescue", "mysql", str(victim), "--out", "dump", "--json")
    assert told.status == 1, told.everything
    found = tables(told)
    assert found["t"]["checksum_table"] == CHECKSUMS["t"]
    assert found["t"]["state"] == "exact"
    assert found["g"]["state"] == "lost"
    left = {one["what"]: one["why"] for one in told.json["left_out"]}
    assert "leads to nothing" in left["/var/lib/mysql/away"]
    assert "leads to nothing" in left["/var/lib/mysql/shop/g.ibd"]
    assert "not followed" in left["/var/lib/mysql/shop/x.isl"]
    assert "away" not in {s["name"] for s in told.json["schemas"]}


def test_a_dictionary_that_names_files_of_this_host(run: Redkeep, tmp_path: Path) -> None:
    """The victim's InnoDB knows where its table is by an absolute path; there, this host has such a file."""
    host = tmp_path / "host"
    host.mkdir()
    with mariadb(tmp_path / "victim", "--symbolic-links") as server:
        server.sql(
            f"CREATE DATABASE shop; USE shop; CREATE TABLE here (x TEXT); INSERT INTO here VALUES ('ours');"
            f"CREATE TABLE there (x TEXT) DATA DIRECTORY='{host}'; INSERT INTO there VALUES ('of-the-host');"
            f"CREATE TABLE isam (x TEXT) ENGINE=MyISAM DATA DIRECTORY='{host}'; INSERT INTO isam VALUES ('of-the-host');"
        )
        server.stop()
    assert (host / "shop/there.ibd").exists()
    assert (host / "isam.MYD").exists()
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o777)  # everybody could read it, were it to be found
    told = run("rescue", "mysql", str(tmp_path / "victim/data"), "--out", "dump", "--json")
    assert told.status == 1, told.everything
    states = {n: t["state"] for n, t in tables(told).items()}
    assert states == {"here": "exact", "there": "lost", "isam": "lost"}
    for file in (tmp_path / "dump").rglob("*"):
        assert file.is_dir() or b"of-the-host" not in file.read_bytes()


def test_a_server_that_hangs_or_is_none(run: Redkeep, clean: Path, tmp_path: Path) -> None:
    fake = tmp_path / "old/bin/mysqld"
    fake.parent.mkdir(parents=True)
    fake.write_text("#!/bin/sh\nexec sleep 1000\n")
    fake.chmod(0o755)
    told = run("rescue", "mysql", str(clean), "--out", "dump", "--mysqld", str(fake), "--patience", "1")
    told.error(1, "did nothing for 1 s", "not with any innodb_force_recovery")
    told = run("rescue", "mysql", str(clean), "--out", "dump", "--mysqld", "/bin/true")
    told.error(1, "does not start")
    run("rescue", "mysql", str(clean), "--out", "dump", "--mysqld", "/no/such").error(1, "no program there")


def test_a_damaged_page_costs_one_table(run: Redkeep, clean: Path, tmp_path: Path) -> None:
    """What comes before it is kept, apart from what is proven; other tables are exact."""
    victim = tmp_path / "mysql"
    shutil.copytree(clean, victim)
    with (victim / "shop/t.ibd").open("r+b") as file:
        file.seek(30 * 16384)
        file.write(os.urandom(8 * 16384))
    told = run("rescue", "mysql", str(victim), "--out", "dump", "--json")
    assert told.status == 1, told.everything
    found = tables(told)
    assert {n: t["state"] for n, t in found.items()} == {
        "c": "exact",
        "g": "exact",
        "m": "exact",
        "t": "incomplete",
    }
    with mariadb(tmp_path / "fresh") as server:
        same_in(server, tmp_path / "dump")
        server.sql((tmp_path / "dump/uncertain/shop.sql").read_bytes())
        assert 0 < int(server.sql("SELECT COUNT(*) FROM shop.t")) < 32768


def test_a_disk_that_is_too_small_is_refused_before(run: Redkeep, clean: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a small disk")
    small = tmp_path / "small"
    small.mkdir()
    disks.run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small)
    try:
        told = run("rescue", "mysql", str(clean), "--out", str(small / "dump"))
        told.error(4, "MiB are free", "larger disk")
    finally:
        disks.run("umount", small)


@pytest.mark.parametrize(("how", "word"), [(signal.SIGSTOP, "did nothing for 3 s"), (signal.SIGKILL, "died")])
def test_a_server_that_stops_in_the_middle(
    run: Redkeep, clean: Path, tmp_path: Path, how: signal.Signals, word: str
) -> None:
    """Whatever was asked then is named, another one starts, and what comes after is there."""
    words = ("rescue", "mysql", str(clean), "--out", "dump", "--patience", "3", "--json")
    process = subprocess.Popen(
        list(run.argv(*words)),
        cwd=tmp_path,
        env=run.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        until = time.monotonic() + 120
        while not (tmp_path / "dump/data/shop.sql").exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.005)
        for server in (met := databases.servers(process.pid)):
            os.kill(server, how)
        stdout, stderr = process.communicate(timeout=200)
    told = Told(words, process.returncode, stdout, stderr)
    assert told.status == 1, told.everything
    found = tables(told)
    assert "exact" in {t["state"] for t in found.values()}, told.everything
    assert any(word in t["why"] for t in found.values()), told.everything
    assert met
    assert databases.are_gone(met)


def test_wrong_places_are_refused(run: Redkeep, clean: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run("rescue", "mysql", "empty", "--out", "dump").error(2, "no data directory", "--datadir")
    run("rescue", "mysql", str(clean), "--out", "dump", "--datadir", "/shop").error(2, "no data directory")
    run("rescue", "mysql", str(clean), "--out", str(clean / "dump")).error(4, "inside the evidence")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter").touch()
    run("rescue", "mysql", str(clean), "--out", "mine").error(4, "not empty")
    run("rescue", "mysql", "nothing", "--out", "dump").error(2, "nothing")
    (tmp_path / "two/a").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "two" / name / "mysql").mkdir(parents=True)
        (tmp_path / "two" / name / "ibdata1").write_bytes(bytes(100))
    run("rescue", "mysql", "two", "--out", "dump").error(2, "2 data directories", "/a (unknown)", "--datadir")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_server_is_left_behind(run: Redkeep, clean: Path, tmp_path: Path, how: signal.Signals) -> None:
    process = subprocess.Popen(
        list(run.argv("rescue", "mysql", str(clean), "--out", "dump")),
        cwd=tmp_path,
        env=run.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        until = time.monotonic() + 120
        while not (met := databases.servers(process.pid)):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(how)
    until = time.monotonic() + 30
    while not databases.are_gone(met):
        assert time.monotonic() < until, "a server outlives the command"
        time.sleep(0.1)
    assert not (tmp_path / "dump/rescue.json").exists()
    if how == signal.SIGKILL:
        run("rescue", "mysql", str(clean), "--out", "dump", "--json").ok()
        assert json.loads((tmp_path / "dump/rescue.json").read_text())["complete"]
