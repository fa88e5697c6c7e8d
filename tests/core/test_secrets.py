import html
import json
import urllib.parse

import pytest

from benchrunner.core.secrets import (
    REDACTED,
    exposed_variable,
    has_secret_shape,
    is_secret,
    redact,
    without_secrets,
)

RANDOM = "q8ZfT3vKx0Lr7NwYb2Jd5HsMc9PgUe4A"
NAMES = [
    "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "MY_PASSWORD", "GOOGLE_CREDENTIALS", "OPENAI_API_KEY",
    "db_passwd", "GITHUB_PAT", "SLACK_WEBHOOK_URL", "NPM_AUTH", "PGPASSFILE", "AZURE_STORAGE_CONNECTION_STRING",
    "SqlConnectionString", "CUDA_SIGNING_KEY", "GPG_SIGNING_KEY", "MYSQL_PWD", "REDIS_PASS", "SENTRY_DSN",
    "WANDB_KEY", "githubToken", "SSH_KEY_PASSPHRASE", "TORCH_HUB_TOKEN", "NCCL_SECRET", "DOCKER_AUTH_CONFIG",
    "GIT_ASKPASS",
]  # fmt: skip
VALUES = {
    "A": "ghp_" + "a1B2" * 9, "B": "xoxb-1234567890-abcdef", "C": "AKIAIOSFODNN7EXAMPLE", "D": "hf_" + "aBcD" * 8,
    "E": "sk-proj-" + "x" * 30, "F": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "G": RANDOM,
    "H": "https://me:pw@index.example/simple", "I": "https://0123456789abcdef01234567@git.example/x.git",
    "J": "Server=db;User Id=me;Password=hunter2;", "K": "-----BEGIN RSA PRIVATE KEY-----\nMII",
    "L": "https://hooks.slack.com/services/T0/B0/x", "M": "https://x.example/blob?sv=1&sig=abcdefghijk%3D",
    "N": '{"type": "service_account", "private_key": "abcdef"}', "O": "glpat-abcdefghij0123456789",
    "P": "postgresql://user:pw@db.example:5432/x", "Q": "x" * 5 + " " + RANDOM,
}  # fmt: skip
HARMLESS = {
    "PATH": "/usr/local/sbin:/usr/bin:/bin",
    "LD_LIBRARY_PATH": "/usr/lib/x86_64-linux-gnu:/opt/q8ZfT3vKx0Lr7NwYb2Jd/lib",
    "CUDA_VISIBLE_DEVICES": "GPU-8f6c4d1e-93ab-4c0d-9c1e-0123456789ab,MIG-3b1f6c4d-93ab-4c0d-9c1e-0123456789ab",
    "NCCL_DEBUG": "INFO", "NCCL_SOCKET_IFNAME": "eth0", "NCCL_IB_HCA": "mlx5_0,mlx5_1", "OMP_NUM_THREADS": "4",
    "NCCL_NVLS_ENABLE": "0", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True,max_split_size_mb:512",
    "TOKENIZERS_PARALLELISM": "false", "MAX_TOKENS": "2048", "PWD": "/home/me", "OLDPWD": "/home", "HOME": "/home/me",
    "GIT_COMMIT": "4b825dc642cb6eb9a060e54bf8d69288fbee4904", "CONDA_DEFAULT_ENV": "base", "LANG": "en_US.UTF-8",
    "TRITON_CACHE_DIR": "/x/4b825dc642cb6eb9a060e54bf8d69288fbee4904/aB3dE5fG7hJ9kL1mN3pQ5r", "KEYBOARD": "de-latin1",
    "NVIDIA_REQUIRE_CUDA": "cuda>=12.4 brand=tesla,driver>=470,driver<471", "NV_CUDNN_VERSION": "9.1.0.70-1",
    "NV_LIBNCCL_PACKAGE": "libnccl2=2.21.5-1+cuda12.4", "TORCH_CUDA_ARCH_LIST": "8.0 8.6 9.0+PTX", "USE_AUTH": "0",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1000/bus", "XDG_SESSION_ID": "12", "SHELL": "/bin/bash",
    "LS_COLORS": "rs=0:di=01;34:ln=01;36:*.tar=01;31", "HF_HOME": "/data/hf", "SSL_CERT_FILE": "/etc/ssl/cert.pem",
    "IMAGE": "registry.example/pytorch@sha256:4b825dc642cb6eb9a060e54bf8d69288fbee49044b825dc642cb6eb9a060e54b",
    "GPU_MODEL": "NVIDIA-H200-SXM-141GB-HBM3e", "HTTP_PROXY": "http://proxy.example:3128", "EMPTY_TOKEN": "",
    "BUILD": "pytorch_2.11.0_cuda13.0_cudnn9_ubuntu24.04_devel", "SLURM_JOB_NODELIST": "node[001-004]",
    "KUBERNETES_PORT": "tcp://10.0.0.1:443", "CMAKE_ARGS": "-DCMAKE_CUDA_ARCHITECTURES=native", "PAGER": "less",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_secret_is_known_by_its_name(name):
    assert is_secret(name, "opaque")


@pytest.mark.parametrize("name", VALUES)
def test_a_secret_is_known_by_the_shape_of_its_value(name):
    assert is_secret(f"BUILD_{name}", VALUES[name])


@pytest.mark.parametrize("name", HARMLESS)
def test_what_ranks_need_is_no_secret(name):
    assert not is_secret(name, HARMLESS[name])


def test_secrets_do_not_pass_but_those_that_are_to():
    environ = {"PATH": "/bin", "HF_TOKEN": "x", "GITHUB_PAT": "y", "HOSTNAME": "h"}
    assert without_secrets(environ) == {"PATH": "/bin"}
    assert without_secrets(environ, ["HF_TOKEN"]) == {"PATH": "/bin", "HF_TOKEN": "x"}


# --- redaction


@pytest.mark.parametrize("write", [str, json.dumps, repr, lambda text: json.dumps([text], ensure_ascii=False)])
@pytest.mark.parametrize("value", ["hunter2", 'qu"ote\\back', "line one\nline two", "pässwört", "a&b<c>d"])
def test_a_value_is_redacted_however_it_is_quoted(monkeypatch, value, write):
    monkeypatch.setenv("GITHUB_PAT", value)
    made = redact(f"before {write(value)} after")
    assert value not in made and REDACTED in made and made.startswith("before ") and made.endswith(" after")


def test_each_line_of_a_key_is_redacted(monkeypatch):
    monkeypatch.setenv("SSH_KEY", "-----BEGIN PRIVATE KEY-----\nMIIabcdef\nghijklmn\n")
    assert redact("> ghijklmn <") == f"> {REDACTED} <"


@pytest.mark.parametrize("value", ["no", "true", "12345", "eager", "1234567"])
def test_a_value_that_every_text_holds_is_not(monkeypatch, value):
    monkeypatch.setenv("MY_SECRET", value)
    assert redact(f"{value} and {value}") == f"{value} and {value}"
    assert exposed_variable(value) is None


def test_the_variable_whose_value_a_text_holds(monkeypatch):
    monkeypatch.setenv("GITHUB_PAT", "opaque-42")
    assert exposed_variable("x=opaque-42") == "GITHUB_PAT"
    assert exposed_variable("x=opaque-43") is None


@pytest.mark.parametrize("quote", [str, lambda text: json.dumps(text)[1:-1], lambda text: repr(text)[1:-1],
                                   lambda text: json.dumps(text, ensure_ascii=False)[1:-1], html.escape,
                                   lambda text: urllib.parse.quote(text, safe="")])  # fmt: skip
@pytest.mark.parametrize("value", ["/a\"b\\c'ü&/", "two words/and=more", '"in quotes"'])
def test_every_way_of_writing_a_value_is_found_whole(monkeypatch, quote, value):
    """Nothing of it stays, not even a character at its ends."""
    monkeypatch.setenv("GITHUB_PAT", value)
    assert redact(f"<{quote(value)}>") == f"<{REDACTED}>"


@pytest.mark.parametrize(
    ("run", "is_secret_shape"),
    [
        (RANDOM, True),
        ("q8ZfT3vKx0Lr7NwYb2Jd", True),  # three kinds of characters, twenty of them
        ("q8zft3vkx0lr7nwyb2jd", False),  # two kinds: not so short
        ("q8zft3vkx0lr7nwyb2jd5hsm1c9pgue4a", True),
        ("qzftvkxlrnwybjdhsmcpgueaqzftvkxlrnwybjd", False),  # one kind
        ("abcdefghijklmnopqrstuvwxyz0123456789ABC", False),  # many kinds, but in runs
        ("4b825dc642cb6eb9a060e54bf8d69288fbee4904", False),  # a hash
        (f"~/{RANDOM}", False),
        (f"./{RANDOM}", False),
        (f"s3:/{RANDOM}", False),
        (f"-DPATH=/{RANDOM}", False),
    ],
)
def test_randomness_is_many_changes_between_kinds_of_characters(run, is_secret_shape):
    assert has_secret_shape(run) is is_secret_shape
