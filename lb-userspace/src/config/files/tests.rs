use super::*;

const DAEMON: &str = "[daemon]\ninterfaces = [\"eth0\"]\n";

fn service(name: &str, last: u8) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nvip = \"192.0.2.{last}:80\"\nprotocol = \"tcp\"\nmode = \"ipip\"\n"
    )
}

/// Loads `lb.toml` beside other files; messages name them without the folder.
fn load_files(main: &str, others: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("conf.d")).unwrap();
    for (name, text) in others.iter().chain(&[("lb.toml", main)]) {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let place = format!("{}/", folder.path().display());
    load(&folder.path().join("lb.toml")).map_err(|error| error.to_string().replace(&place, ""))
}

#[test]
fn parts_are_read_by_name_and_others_are_not() {
    let limit = "[[limit]]\nscope = \"source\"\npackets = \"1k/s\"\nburst = 100\naction = \"drop\"\n";
    let main = format!("{DAEMON}[lists]\ndeny = [\"10.0.0.0/8\"]\n{}", service("a", 1));
    let lists = "[lists]\ndeny = [\"10.0.0.0/8\", \"11.0.0.0/8\"]\nallow_file = \"allow.txt\"\n";
    let config = load_files(
        &main,
        &[
            ("conf.d/20.toml", &service("b", 2)),
            ("conf.d/10.toml", &format!("{limit}{}", service("c", 3))),
            ("conf.d/lists.toml", lists),
            ("conf.d/allow.txt", "203.0.113.7\n"),
            ("conf.d/.hidden.toml", "nonsense"),
            ("conf.d/30.toml.bak", "nonsense"),
            ("conf.d/README", "nonsense"),
        ],
    )
    .unwrap();
    let names: Vec<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["a", "c", "b"]);
    assert_eq!((config.limits.len(), config.lists.len()), (1, 3));
}

#[test]
fn conflicts_between_files_are_named_with_both() {
    let main = format!("{DAEMON}[lists]\ndeny = [\"10.0.0.0/8\"]\n{}", service("a", 1));
    let error = load_files(
        &main,
        &[
            ("conf.d/1.toml", &service("a", 2)),
            ("conf.d/2.toml", &service("b", 1)),
            ("conf.d/3.toml", "[lists]\nallow = [\"10.0.0.0/8\"]\n[daemon]\nflows = 8\n"),
            ("conf.d/4.toml", "nonsense"),
        ],
    )
    .unwrap_err();
    let expected = "conf.d/1.toml:2: service a: name: the service on line 6 of lb.toml has the same name\n\
        conf.d/2.toml:3: service b: vip: 192.0.2.1:80 tcp belongs to service a on line 7 of lb.toml\n\
        conf.d/3.toml:2: lists.allow[0]: 10.0.0.0/8 is on the deny list too, and can be on one only; the other one is \
        on line 4 of lb.toml\n\
        conf.d/3.toml:3: daemon: only the main file has it; move its keys there\n\
        conf.d/4.toml:1: key with no value, expected `=`";
    assert_eq!(error, expected);
}

#[test]
fn a_configuration_needs_no_parts_and_its_main_file_needs_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lb.toml");
    std::fs::write(&path, DAEMON).unwrap();
    assert!(load(&path).unwrap().services.is_empty());
    let error = load_files(&service("a", 1), &[]).unwrap_err();
    assert_eq!(error, "lb.toml:1: daemon: missing; expected [daemon] with interfaces = [\"eth0\"]");
}

#[test]
fn a_text_by_itself_names_no_files() {
    let text = |text: &str| parse_text(text, Path::new("text")).map_err(|error| error.to_string());
    assert_eq!(text("").unwrap(), Text { daemon: None, desired: Desired::default() });
    assert!(text(DAEMON).unwrap().daemon.is_some());
    let error = text("[lists]\ndeny_file = \"deny.txt\"\n").unwrap_err();
    let expected = "text:2: lists.deny_file: a text that is sent names no files; write the prefixes themselves, as \
        `lb config apply` does";
    assert_eq!(error, expected);
}
