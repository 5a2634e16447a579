"""What a server's parser says of settings, in the words of several engines."""

from __future__ import annotations

from redkeep.run.steps.tryout import verdict

REDIS_7 = """
*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***
Reading the configuration file, at line 2
>>> 'nonsense "1"'
Bad directive or wrong number of arguments
"""
VALKEY_9 = """12901:M 24 Nov 2026 17:50:37.427 * Reading config from stdin

*** FATAL CONFIG FILE ERROR (Version 9.1.2) ***
Reading the configuration file, at line 2
>>> 'databases "abc"'
argument couldn't be parsed into an integer
"""
FINE = REDIS_7.replace('nonsense "1"', "redkeep-asks-only yes")


def test_the_setting_and_the_reason() -> None:
    assert verdict(REDIS_7) == ("nonsense", "Bad directive or wrong number of arguments")
    assert verdict(VALKEY_9) == ("databases", "argument couldn't be parsed into an integer")


def test_the_line_that_no_server_likes_means_that_the_others_are_fine() -> None:
    assert verdict(FINE) is None


def test_what_says_nothing_of_settings_is_no_verdict() -> None:
    assert verdict("") is None
    assert verdict("sh: 1: redis-server: not found") is None
