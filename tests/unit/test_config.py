# SPDX-License-Identifier: BSD-2-Clause
"""The configuration file: what it means, how it is refused and what a reload may change; no device, no root."""

from pathlib import Path
from textwrap import dedent

import pytest

from cuse_netmap.backends import tap
from cuse_netmap.config import Change, Config, ConfigError, Memory, diff, load

ROOT = Path(__file__).parents[2]
TABLES = "[device], [log], [memory], [parameters], [interfaces], [dpdk], [ports.NAME]"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "c.toml"


def given(file: Path, content: str) -> Config:
    file.write_text(dedent(content))
    return load(file)


def refusal(file: Path, content: str) -> str:
    """Everything after the file's name and a colon."""
    with pytest.raises(ConfigError) as caught:
        given(file, content)
    name, _, rest = str(caught.value).partition(":")
    assert name == str(file)
    return rest


def test_without_a_file_there_is_one_tap_port() -> None:
    config = load()
    assert list(config.ports) == ["tap0"]
    assert config.ports["tap0"].backend == "tap"
    assert config.ports["tap0"].options == tap.Options()
    assert (config.device.name, config.device.mode, config.log.level) == ("netmap", 0o660, "info")


def test_example_file_states_every_key_at_its_default() -> None:
    example = ROOT / "packaging" / "cuse-netmap.toml"
    assert load(example) == load()
    keys = {line.partition(" = ")[0] for line in example.read_text().splitlines() if " = " in line and line[0] != "#"}
    config = load()
    tables: list[object] = [
        config.device,
        config.log,
        config.memory,
        config.parameters,
        config.interfaces,
        config.dpdk,
        config.ports["tap0"].options,
    ]
    assert keys == set().union(*(vars(table) for table in tables))


def test_values_of_a_file_arrive(file: Path) -> None:
    config = given(
        file,
        """
        [device]
        name = "netmap7"
        door = "fuse"
        mode = "0600"
        [ports.a]
        backend = "tap"
        queues = 4
        mac = "02:00:00:00:00:01"
        [ports."eth0.100"]
        backend = "null"
        """,
    )
    assert (config.device.name, config.device.door, config.device.mode) == ("netmap7", "fuse", 0o600)
    assert config.ports["a"].options == tap.Options(queues=4, mac="02:00:00:00:00:01")
    assert config.ports["eth0.100"].backend == "null"


def test_empty_table_of_ports_means_no_port(file: Path) -> None:
    assert given(file, "[ports]\n").ports == {}


def test_default_region_has_the_size_of_netmaps() -> None:
    """ABI.md section 8, region 1."""
    assert Memory().region == 343019520
    assert Memory().most_slots == 2288


@pytest.mark.parametrize(
    ("size", "count", "whole"),
    [(1024, 1, 4096), (1000, 5, 8192), (4096, 3, 12288), (192, 65, 192 * 128)],
)
def test_pool_is_whole_clusters_of_rounded_objects(size: int, count: int, whole: int) -> None:
    """ABI.md section 8: objects rounded up to 64, clusters of the fewest that fill whole pages."""
    assert Memory(buf_size=size, buf_num=count).pools["buf"] == whole


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('door = "front"', 'door: is "front", must be one of "auto", "fuse", "cuse"'),
        ("door = 1", 'door: is 1, must be one of "auto", "fuse", "cuse"'),
        ('name = ""', 'name: is "", must be 1 to 31 of A-Z a-z 0-9 _ . -'),
        ('name = ".."', 'name: is "..", must be 1 to 31 of A-Z a-z 0-9 _ . -'),
        ('name = "a/b"', 'name: is "a/b", must be 1 to 31 of A-Z a-z 0-9 _ . -'),
        ('name = "a\\n"', 'name: is "a\\n", must be 1 to 31 of A-Z a-z 0-9 _ . -'),
        (f'name = "{"n" * 32}"', f'name: is "{"n" * 32}", must be 1 to 31 of A-Z a-z 0-9 _ . -'),
        ("mode = 0o660", 'mode: is 432, must be a string such as "0660": read and write bits in octal'),
        ('mode = "0770"', 'mode: is "0770", must be a string such as "0660": read and write bits in octal'),
        ('group = ["a"]', "group: is an array, must be the name of a group"),
        ("group = {}", "group: is a table, must be the name of a group"),
        ("colour = 1", "colour: is no key here; allowed: name, door, transport, mode, group"),
    ],
)
def test_unfit_value_names_line_table_key_and_what_is_allowed(file: Path, line: str, what: str) -> None:
    assert refusal(file, f"# two lines\n[device]\n{line}\n") == f"3: [device] {what}"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("queues = 0", "queues: is 0, must be a whole number from 1 to 16"),
        ("queues = true", "queues: is true, must be a whole number from 1 to 16"),
        ("queues = 1.0", "queues: is 1.0, must be a whole number from 1 to 16"),
        ("slots = 1", "slots: is 1, must be a whole number from 2 to 8176"),
        ("slots = 2289", "slots: is 2289, but [memory] ring_size = 36864 has room for at most 2288"),
        ("up = 1", "up: is 1, must be true or false"),
        ("mtu = 67", "mtu: is 67, must be a whole number from 68 to 65521"),
        ("sndbuf = -1", "sndbuf: is -1, must be a whole number from 4096 to 2147483647"),
        ("devargs = 1", "devargs: is no key here; allowed: queues, slots, up, mtu, mac, sndbuf"),
    ],
)
def test_unfit_option_of_a_tap_port_is_refused(file: Path, line: str, what: str) -> None:
    assert refusal(file, f'[ports.t]\nbackend = "tap"\n{line}\n') == f"3: [ports.t] {what}"


@pytest.mark.parametrize("backend", ["none", "tap", "null", "dpdk"])
def test_interfaces_of_a_backend_that_cannot_take_any_are_refused(file: Path, backend: str) -> None:
    text = refusal(file, f'[interfaces]\nbackend = "{backend}"\n')
    assert text.startswith(f'2: [interfaces] backend: is "{backend}", must be one of "raw", "xdp", "auto"')


@pytest.mark.parametrize("mac", ["01:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00", "02-00-00-00-00-01", "x"])
def test_address_that_no_interface_can_have_is_refused(file: Path, mac: str) -> None:
    text = refusal(file, f'[ports.t]\nbackend = "tap"\nmac = "{mac}"\n')
    assert text.startswith(f'3: [ports.t] mac: is "{mac}", must be a unicast address')


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a b", "a:b", "a/b", "a{1", "a^", "a*", "a@2", "a-0", "vale0", "x" * 16]
)
def test_port_name_that_no_program_could_open_is_refused(file: Path, name: str) -> None:
    """ABI.md section 6: the characters at which netmap's parsers end a name, and the kernel's rules for interfaces."""
    text = refusal(file, f'\n[ports."{name}"]\nbackend = "null"\n')
    assert text.replace('"', "").startswith(f"2: [ports.{name}]: is no port's name, must be 1 to 15 of ")


@pytest.mark.parametrize("name", ["tap0", "eth0.100", "veth_a", "x" * 15, "va", "..."])
def test_port_name_of_an_interface_is_accepted(file: Path, name: str) -> None:
    assert list(given(file, f'[ports."{name}"]\nbackend = "null"\n').ports) == [name]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("", "1: [ports.t] backend: is missing"),
        (
            'backend = "xyz"',
            '2: [ports.t] backend: is "xyz"',
        ),
        (
            'backend = ["tap"]',
            "2: [ports.t] backend: is an array",
        ),
    ],
)
def test_port_without_a_known_backend_is_refused(file: Path, line: str, what: str) -> None:
    known = '"tap", "null", "raw", "xdp", "auto", "dpdk"'
    assert refusal(file, f"[ports.t]\n{line}\n") == f"{what}, must be one of {known}"


def test_key_of_another_backend_is_refused(file: Path) -> None:
    text = refusal(file, '[ports.n]\nbackend = "null"\nmtu = 1500\n')
    assert text == "3: [ports.n] mtu: is no key here; allowed: queues, slots"


@pytest.mark.parametrize(("backend", "keys"), [("raw", "none"), ("xdp", "xdp_mode, xdp_buffers")])
def test_queues_and_slots_of_an_interface_are_not_for_the_configuration_to_say(
    file: Path, backend: str, keys: str
) -> None:
    text = refusal(file, f'[ports.eth0]\nbackend = "{backend}"\nqueues = 1\n')
    assert text == f"3: [ports.eth0] queues: is no key here; allowed: {keys}"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("device = 3", "1: device: is 3, must be a table"),
        ("\n[ports]\ntap0 = 3", "3: [ports] tap0: is 3, must be a table"),
        ("[[ports]]", "1: ports: is an array, must be a table"),
        ("[colours]", f"1: colours: is no table of a configuration; allowed: {TABLES}"),
        ("\nx = 1", f"2: x: is no table of a configuration; allowed: {TABLES}"),
    ],
)
def test_what_is_no_table_is_refused(file: Path, content: str, what: str) -> None:
    assert refusal(file, content) == what


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("[device]\nname = netmap\n", "2: [device] name: is not TOML: Invalid value"),
        ("[device\n", "1: is not TOML: Expected ']' at the end of a table declaration"),
        ("[log]\n\nlevel\n", "3: [log] level: is not TOML: Expected '=' after a key in a key/value pair"),
        ("[log]\nlevel = [1,\n2,\n\n", "2: [log] level: is not TOML: Invalid value"),
        ('a = """\n\n', '1: a: is not TOML: Expected \'"""\''),
    ],
)
def test_syntax_error_names_the_statement_that_cannot_be_read(file: Path, content: str, what: str) -> None:
    text = refusal(file, content)
    assert text.startswith(what.partition(" is not TOML")[0] + " is not TOML: ")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('[log]\nlevel = "info"\n\nlevel = "error"\n', "4: [log] level: is given twice, first on line 2"),
        ("[log]\n[device]\n[log]\n", "3: [log]: is given twice, first on line 1"),
        ("[ports]\na.queues = 1\na.queues = 2\n", "3: [ports.a] queues: is given twice, first on line 2"),
        ('log.level = "info"\n[log]\nlevel = "info"\n', "2: [log]: is given twice, first on line 1"),
    ],
)
def test_what_is_given_twice_names_both_lines(file: Path, content: str, what: str) -> None:
    assert refusal(file, content) == what


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('ports.t.backend = "tap"\nports.t.mtu = 1\n', 2),
        ('[ports]\nt = { backend = "tap",  mtu = 1 }\n', 2),
        ('["ports" . t]\nbackend = "tap"\n"mtu" = 1\n', 3),
        ('[ports.t]\nbackend = "tap"\n# mtu = 1\n\nmtu = 1 # mtu = 1\n', 5),
        ('[log]\nlevel = """\n\n[device]\nlevel = 3"""\n', 2),
        ('[ports.t]\r\nbackend = "tap"\r\nmtu = 1\r\n', 3),
    ],
)
def test_line_is_found_however_the_key_is_written(file: Path, content: str, line: int) -> None:
    file.write_bytes(content.encode())
    with pytest.raises(ConfigError, match=rf":{line}: \["):
        load(file)


def test_region_of_four_gibibytes_is_refused_and_the_sum_named(file: Path) -> None:
    text = refusal(file, "[memory]\nbuf_size = 8192\nbuf_num = 600000\n")
    assert text == (
        "3: [memory] buf_num: the region would be 4922675200 bytes (if 102400 + ring 7372800 + buf 4915200000), "
        "must stay below 4294967296"
    )


def test_memory_too_small_for_a_port_is_refused_at_whoever_was_written(file: Path) -> None:
    assert refusal(file, "[memory]\nring_size = 512\n") == (
        "2: [memory] ring_size: is too small for [ports.tap0] slots = 1024: "
        "[memory] ring_size = 512 has room for at most 16"
    )
    assert refusal(file, '[memory]\nif_size = 88\n[ports.t]\nbackend = "null"\nqueues = 9\n') == (
        "5: [ports.t] queues: is 9, but [memory] if_size = 88 has room for at most 3"
    )


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none: cannot be read: No such file or directory"):
        load(tmp_path / "none")


def test_file_that_is_not_utf8_names_the_line(file: Path) -> None:
    file.write_bytes(b"[log]\nlevel = '\xff'\n")
    with pytest.raises(ConfigError, match=":2: is not UTF-8"):
        load(file)


def test_command_line_overrides_the_file(file: Path) -> None:
    file.write_text('[device]\ndoor = "cuse"\n')
    config = load(file, {("device", "door"): "fuse", ("ports", "tap7", "backend"): "tap"})
    assert config.device.door == "fuse"
    assert list(config.ports) == ["tap7"]


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ({("device", "door"): "front"}, "[device] door: is "),
        ({("ports", "a-b", "backend"): "tap"}, "[ports.a-b]: is no port's name"),
        ({("log", "level", "x"): 1}, "[log] level: is "),
    ],
)
def test_unfit_override_blames_the_command_line(file: Path, override: dict[tuple[str, ...], object], what: str) -> None:
    file.write_text('[log]\nlevel = "info"\n')
    with pytest.raises(ConfigError) as caught:
        load(file, override)
    assert str(caught.value).startswith(f"command line: {what}")


def test_reload_changes_live_keys_at_once(file: Path) -> None:
    old = load()
    new = given(file, '[log]\nlevel = "debug"\n[ports.tap0]\nbackend = "tap"\nup = false\nmtu = 9000\n')
    assert diff(old, new) == [
        Change("log", "level", "info", "debug"),
        Change("ports.tap0", "up", old=True, new=False),
        Change("ports.tap0", "mtu", 1500, 9000),
    ]


def test_reload_adds_and_removes_ports(file: Path) -> None:
    old = load()
    new = given(file, '[ports.n]\nbackend = "null"\n')
    assert diff(old, new) == [
        Change("ports.tap0", "", old.ports["tap0"], None),
        Change("ports.n", "", None, new.ports["n"]),
    ]


@pytest.mark.parametrize(
    ("table", "key", "line", "reason"),
    [
        ("device", "name", '[device]\nname = "netmap1"', "restart the daemon"),
        ("device", "door", '[device]\ndoor = "fuse"', "restart the daemon"),
        ("device", "transport", '[device]\ntransport = "uring"', "restart the daemon"),
        ("memory", "buf_num", "[memory]\nbuf_num = 1000", "restart the daemon"),
        ("ports.tap0", "queues", '[ports.tap0]\nbackend = "tap"\nqueues = 2', "take the port out"),
        ("ports.tap0", "backend", '[ports.tap0]\nbackend = "null"', "take the port out"),
    ],
)
def test_reload_refuses_what_was_settled_at_start(file: Path, table: str, key: str, line: str, reason: str) -> None:
    (change,) = diff(load(), given(file, line))
    assert (change.table, change.key) == (table, key)
    assert reason in change.refused


def test_reload_of_the_same_file_changes_nothing() -> None:
    assert diff(load(), load()) == []
