"""What a rescued database runs by itself, and who may: kept apart, and as it was when somebody loads it."""

from __future__ import annotations

from pathlib import Path

from tests.cli import Redkeep
from tests.rescue import disks
from tests.rescue.databases import mariadb, same_in

MADE = """
CREATE DATABASE e; USE e; CREATE TABLE t (i INT); INSERT INTO t VALUES (1);
CREATE VIEW a AS SELECT i, '100%' p FROM t; CREATE VIEW z AS SELECT i+1 j FROM t; CREATE VIEW b AS SELECT * FROM z;
DELIMITER //
CREATE FUNCTION f(x INT, y VARCHAR(10) CHARACTER SET utf8mb4) RETURNS VARCHAR(20) CHARSET utf8mb4
DETERMINISTIC COMMENT 'it''s' BEGIN DECLARE q INT; SET q = x; RETURN CONCAT(y, '中;;', q); END//
CREATE PROCEDURE pr(IN a INT, OUT b INT) SET b = a//
DELIMITER ;
CREATE EVENT ev ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' COMMENT 'daily' DO INSERT INTO e.t VALUES (2);
CREATE USER 'u''x'@'%' IDENTIFIED BY 'pw'; GRANT SELECT ON e.t TO 'u''x'@'%'; GRANT INSERT ON e.* TO 'u''x'@'%';
"""


def test_code_and_accounts(tmp_path: Path) -> None:
    disks.need("mariadb-install-db")
    victim = tmp_path / "victim"
    disks.run(
        "mariadb-install-db",
        "--no-defaults",
        "--user=root",
        f"--datadir={victim}/data",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
    )
    with mariadb(victim, "--skip-grant-tables=0") as server:
        server.sql(MADE)
        server.stop()
    run = Redkeep(tmp_path, timeout=300)
    told = run("rescue", "mysql", str(victim / "data"), "--out", "dump", "--json").ok().json
    assert told["schemas"][0]["code"] == {"views": 3, "routines": 2, "events": 1}
    dump = tmp_path / "dump"
    accounts = (dump / "accounts.sql").read_text()
    assert "CREATE USER `u'x`@`%` IDENTIFIED WITH mysql_native_password AS '*" in accounts
    assert "GRANT SELECT ON `e`.`t` TO `u'x`@`%`" in accounts
    assert "GRANT INSERT ON `e`.* TO `u'x`@`%`" in accounts

    with mariadb(victim, "--skip-grant-tables=0") as server:
        server.sql("DROP DATABASE e")
        same_in(server, dump)
        for kind in ("views", "routines", "events"):
            server.sql((dump / f"code/e.{kind}.sql").read_bytes())
        assert server.sql("SELECT e.f(7, 'x')") == "x中;;7\n"
        assert server.sql("CALL e.pr(3, @b); SELECT @b") == "3\n"
        assert server.sql("SELECT j, p FROM e.b, e.a") == "2\t100%\n"
        asked = "SELECT status, interval_value, interval_field, starts, event_comment FROM information_schema.events"
        assert server.sql(asked) == "DISABLED\t1\tDAY\t2030-01-01 00:00:00\tdaily was ENABLED\n"
