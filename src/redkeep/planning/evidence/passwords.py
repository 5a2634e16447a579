"""Which passwords are found first by whoever tries."""

from __future__ import annotations

import hashlib

#: Shorter ones fall to trying: a server checks some hundred thousand a second.
SHORTEST = 12

#: From lists of leaked passwords, tutorials, images and honeypots of Redis.
_COMMON = """
    123456 1234567 12345678 123456789 1234567890 12345 1234 123 111111 000000 666666 888888 654321 123123 123321 112233
    password passw0rd p@ssw0rd p@ssword password1 password123 passwd pass pass123 secret changeme changeit letmein welcome
    qwerty qwerty123 abc123 abc123456 a123456 1q2w3e4r 1qaz2wsx iloveyou admin admin123 administrator root root123 toor
    test test123 testing guest user default foobared foobar redis redis123 redis@123 redispass redispassword redis_password
    redis-password myredis myredispassword mypassword mysecretpassword mysecret yourpassword your_password
    your_redis_password yourstrongpassword strongpassword strong_password verystrongpassword valkey valkey123 valkeypassword
    sentinel cluster master slave replica cache session laravel spring ruoyi jeecg example docker kubernetes bitnami
    bitnami123 helloworld hello123 aliyun aliyun123 tencent huawei 5201314 a1b2c3d4 q1w2e3r4 zaq12wsx !qaz2wsx 1qaz@wsx
    p@ssw0rd123 admin@123 root@123 test@123 abcd1234 asdf1234 qwer1234 mypass my-password my_password supersecret
    supersecretpassword s3cret s3cr3t sup3rs3cr3t use_a_strong_password_here your-strong-password changethispassword
"""
COMMON = frozenset(_COMMON.split())

#: As ACL LIST shows passwords.
COMMON_DIGESTS = frozenset(hashlib.sha256(word.encode()).hexdigest() for word in COMMON)


def weakness(password: str) -> str:
    """What is weak about it, as the end of a sentence; empty where nothing is known to be."""
    if password.lower() in COMMON:
        return "one of the most common ones"
    if len(password) < SHORTEST:
        return f"only {len(password)} characters long"
    if len(set(password)) < 5:
        return "made of very few different characters"
    return ""
