//! Deny and allow lists, in the file and in files of their own.

use super::*;
use ListName::{Allow, Deny};

fn with_lists(lists: &str) -> String {
    format!("{DAEMON}[lists]\n{lists}\n")
}

fn told(config: &Config, list: ListName) -> Vec<String> {
    config.lists.of(list).iter().map(ToString::to_string).collect()
}

#[test]
fn deny_and_allow_lists_are_read() {
    assert!(read_ok(DAEMON).lists.is_empty());
    let config = read_ok(&with_lists(
        r#"
        deny = ["198.51.100.0/24", "::/0", "10.0.0.1", "198.51.100.0/24"]
        allow = ["2001:db8::/32", "198.51.100.128/25"]
        "#,
    ));
    assert_eq!(told(&config, Deny), ["10.0.0.1", "198.51.100.0/24", "::/0"]);
    assert_eq!(told(&config, Allow), ["198.51.100.128/25", "2001:db8::/32"]);
    assert!(config.list_files.is_empty());
}

#[test]
fn mistakes_in_deny_and_allow_lists_are_refused() {
    let expected = "expected ADDRESS or ADDRESS/BITS such as 192.0.2.5, 192.0.2.0/24 or fd00:1::/64";
    for (lists, mistake) in [
        (
            "deny = \"10.0.0.0/8\"",
            "deny: expected an array such as [\"198.51.100.0/24\"], found a string".to_owned(),
        ),
        (
            "deny = [\"::1\", \"10.0.0.7/8\"]",
            format!("deny[1]: \"10.0.0.7/8\": bits behind the prefix are set: write 10.0.0.0/8; {expected}"),
        ),
        (
            "deny = [\"10.0.0.0/8\"]\nallow = [\"::/0\", \"10.0.0.0/8\"]",
            "allow[1]: 10.0.0.0/8 is on the deny list too, and can be on one only".to_owned(),
        ),
        ("deny_file = 5", "deny_file: expected a string in quotes, found an integer".to_owned()),
        ("block = []", "block: unknown key; expected one of deny, deny_file, allow, allow_file".to_owned()),
    ] {
        let line = 3 + lists.lines().count();
        assert_eq!(mistakes(&with_lists(lists)), format!("lb.toml:{line}: lists.{mistake}"));
    }
}

#[test]
fn a_hundred_thousand_mistakes_are_told_with_their_lines() {
    let entries = "  \"10.0.0.7/8\",\n".repeat(100_000);
    let mistakes = mistakes(&with_lists(&format!("deny = [\n{entries}]")));
    let lines: Vec<&str> =
        mistakes.lines().filter(|line| line.contains("bits behind the prefix are set")).collect();
    assert_eq!(lines.len(), 100_000);
    let first = 1 + with_lists("deny = [").lines().count();
    for (at, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("lb.toml:{}: lists.deny[{at}]: ", first + at)), "{line}");
    }
}

/// A configuration beside files of lists, loaded.
fn load_with(lists: &str, files: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let path = folder.path().join("lb.toml");
    std::fs::write(&path, with_lists(lists)).unwrap();
    let folder = format!("{}/", folder.path().display());
    load(&path).map_err(|error| error.to_string().replace(&folder, ""))
}

#[test]
fn deny_and_allow_files_add_to_the_lists() {
    let lists = "deny = [\"10.0.0.0/8\"]\ndeny_file = \"deny.txt\"\nallow_file = \"allow.txt\"";
    let denied = "# known to be bad\n198.51.100.0/24\n\n  2001:db8:bad::/48   # since May\r\n10.0.0.0/8\n";
    let config = load_with(lists, &[("deny.txt", denied), ("allow.txt", "203.0.113.7")]).unwrap();
    assert_eq!(told(&config, Deny), ["10.0.0.0/8", "198.51.100.0/24", "2001:db8:bad::/48"]);
    assert_eq!(told(&config, Allow), ["203.0.113.7"]);
    let parsed = read_ok(&with_lists(lists));
    assert_eq!(parsed.lists.len(), 1, "a text alone reads no files");
    assert_eq!(parsed.list_files, [(Deny, "deny.txt".into()), (Allow, "allow.txt".into())]);
}

#[test]
fn mistakes_in_deny_files_are_told_with_their_lines() {
    let error = |text: &str| load_with("deny_file = \"deny.txt\"", &[("deny.txt", text)]).unwrap_err();
    assert_eq!(
        error("10.0.0.0/8\n10.0.0.256\n10.0.0.1/8 # no\n"),
        "deny.txt:2: \"10.0.0.256\": 256 is not a byte; expected ADDRESS or ADDRESS/BITS such as \
         192.0.2.5, 192.0.2.0/24 or fd00:1::/64\n\
         deny.txt:3: \"10.0.0.1/8\": bits behind the prefix are set: write 10.0.0.0/8; expected ADDRESS or \
         ADDRESS/BITS such as 192.0.2.5, 192.0.2.0/24 or fd00:1::/64"
    );
    let many = error(&"no prefix\n".repeat(100));
    assert_eq!(many.lines().count(), 21);
    assert!(many.ends_with("deny.txt: and 80 more mistakes; is it a list of prefixes?"), "{many}");
    let both = "allow = [\"10.0.0.0/8\"]\ndeny_file = \"deny.txt\"";
    assert_eq!(
        load_with(both, &[("deny.txt", "10.0.0.0/8\n")]).unwrap_err(),
        "deny.txt:1: 10.0.0.0/8 is on the allow list too, and can be on one only"
    );
    let missing = load_with("deny_file = \"deny.txt\"", &[]).unwrap_err();
    assert_eq!(missing, "deny.txt: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn long_deny_lists_have_room_and_longer_ones_are_refused() {
    let addresses = |count: u32| -> String {
        let line = |n| format!("{}\n", std::net::Ipv4Addr::from_bits(0x0a00_0000 + n));
        (0..count).map(line).collect::<Vec<_>>().concat()
    };
    let load = |count| load_with("deny_file = \"deny.txt\"", &[("deny.txt", &addresses(count))]);
    assert_eq!(load(100_000).unwrap().lists.len(), 100_000);
    assert_eq!(
        load(250_001).unwrap_err(),
        "deny.txt: 250001 prefixes are listed, but there is room for 250000 on both lists together"
    );
}
