use std::os::unix::fs::PermissionsExt as _;

use super::super::{Origin, encode};
use super::*;
use crate::config::{digest, parse_text};

/// Another configuration for each number.
fn desired(number: u64) -> Desired {
    let text = format!(
        "[[service]]\nname = \"web\"\nvip = \"192.0.2.{number}:80\"\nprotocol = \"tcp\"\nmode = \"ipip\"\n\
         backends = [{{ address = \"10.0.1.1:80\" }}]\n"
    );
    parse_text(&text, "text".as_ref()).unwrap().desired
}

fn generation(number: u64) -> Generation {
    Generation::new(number, Origin::Api, digest(&desired(number)), vec![format!("change {number}")])
}

/// A place for a state directory, which is not there yet.
fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lb");
    (folder, path)
}

fn open(path: &Path) -> (Directory, Found) {
    Directory::open(path).unwrap()
}

fn write(directory: &mut Directory, numbers: impl IntoIterator<Item = u64>) {
    numbers.into_iter().for_each(|number| directory.write(&generation(number), &desired(number)).unwrap());
}

fn numbers(directory: &Directory) -> Vec<u64> {
    directory.history().iter().map(|generation| generation.number).collect()
}

fn names(path: &Path) -> Vec<String> {
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(path).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn a_new_directory_is_nobody_elses_and_empty() {
    let (_folder, path) = place();
    let (_, found) = open(&path);
    assert_eq!((found.newest, found.damaged, found.last), (None, Vec::new(), 0));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn the_last_ten_are_kept_and_found_again() {
    let (_folder, path) = place();
    let (mut directory, _) = open(&path);
    write(&mut directory, 1..=12);
    assert_eq!(numbers(&directory), (3..=12).collect::<Vec<_>>());
    drop(directory);
    let (directory, found) = open(&path);
    assert_eq!(numbers(&directory), (3..=12).collect::<Vec<_>>());
    assert_eq!(found.newest.map(|(generation, wanted)| (generation.number, wanted)), Some((12, desired(12))));
    assert_eq!((found.damaged, found.last), (Vec::new(), 12));
    assert_eq!(names(&path).len(), KEPT);
    assert_eq!(directory.read(3).unwrap(), desired(3));
    let missing = directory.read(2).unwrap_err().to_string();
    assert_eq!(missing, "generation 2 is not kept; see `lb config history`");
    let mode = fs::metadata(path.join("generation-12.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_generation_can_be_taken_back_or_written_again() {
    let (_folder, path) = place();
    let (mut directory, _) = open(&path);
    write(&mut directory, [1, 2, 3]);
    directory.remove(3).unwrap();
    assert_eq!(numbers(&directory), [1, 2]);
    write(&mut directory, [2]);
    assert_eq!(numbers(&directory), [1, 2]);
    drop(directory);
    assert_eq!(open(&path).1.newest.unwrap().0.number, 2);
}

#[test]
fn a_damaged_generation_is_kept_aside_and_the_last_good_one_is_found() {
    let (_folder, path) = place();
    let (mut directory, _) = open(&path);
    write(&mut directory, [1, 2, 3]);
    drop(directory);
    let file = |number: u64| path.join(format!("generation-{number}.toml"));
    let text = fs::read_to_string(file(3)).unwrap();
    fs::write(file(3), &text[..text.len() / 2]).unwrap();
    fs::write(file(2), b"\xff\xfe nonsense").unwrap();
    let (directory, found) = open(&path);
    assert_eq!(found.newest.unwrap().0.number, 1);
    assert_eq!(found.last, 3, "its number is not given again");
    let place = format!("{}/", path.display());
    let told: Vec<String> = found.damaged.iter().map(|sentence| sentence.replace(&place, "")).collect();
    let cut = "generation-3.toml: its sum is not that of its text: it was cut off or changed; it is kept as \
               generation-3.toml.bad";
    assert_eq!(told[0], cut);
    assert_eq!(told.len(), 2);
    assert_eq!(names(&path), ["generation-1.toml", "generation-2.toml.bad", "generation-3.toml.bad"]);
    assert_eq!(numbers(&directory), [1]);
}

#[test]
fn what_the_rules_refuse_is_damaged_too() {
    let (_folder, path) = place();
    drop(open(&path));
    let text = encode(&generation(1), &desired(1));
    let (head, body) = text.split_once('\n').unwrap();
    let body = body.replace("10.0.1.1:80", "192.0.2.1:80");
    let sum = crate::config::Digest::of(&body);
    let text = format!("{}{sum}\n{body}", &head[..head.len() - 32]);
    fs::write(path.join("generation-1.toml"), text).unwrap();
    let (_, found) = open(&path);
    assert!(found.newest.is_none());
    assert!(found.damaged[0].contains("192.0.2.1 is the VIP itself"), "{:?}", found.damaged);
}

#[test]
fn what_a_killed_daemon_left_unfinished_is_removed() {
    let (_folder, path) = place();
    let (mut directory, _) = open(&path);
    write(&mut directory, [1]);
    drop(directory);
    fs::write(path.join("generation-2.toml.new"), "half").unwrap();
    fs::write(path.join("notes.txt"), "an operator's own").unwrap();
    let (_, found) = open(&path);
    assert_eq!((found.newest.unwrap().0.number, found.damaged), (1, Vec::new()));
    assert_eq!(names(&path), ["generation-1.toml", "notes.txt"]);
}

#[test]
fn two_daemons_do_not_share_a_directory() {
    let (_folder, path) = place();
    let (directory, _) = open(&path);
    let error = Directory::open(&path).unwrap_err().to_string();
    let expected = format!(
        "the state directory {} is in use by another lb; [daemon] state gives this one a directory of its own",
        path.display()
    );
    assert_eq!(error, expected);
    drop(directory);
    open(&path);
}

#[test]
fn a_directory_without_a_parent_is_not_made() {
    let error = Directory::open("/nonexistent/parent/lb".as_ref()).unwrap_err().to_string();
    let expected = "the state directory /nonexistent/parent/lb cannot be made: No such file or directory (os error 2); \
                    [daemon] state names another one";
    assert_eq!(error, expected);
}

/// A directory in the way of the temporary file stands for every disk that does not take it.
#[test]
fn what_cannot_be_written_leaves_nothing() {
    let (_folder, path) = place();
    let (mut directory, _) = open(&path);
    write(&mut directory, [1]);
    fs::create_dir(path.join("generation-2.toml.new")).unwrap();
    let error = directory.write(&generation(2), &desired(2)).unwrap_err().to_string();
    assert!(error.ends_with("generation-2.toml cannot be written: Is a directory (os error 21)"), "{error}");
    assert_eq!(numbers(&directory), [1]);
    fs::remove_dir(path.join("generation-2.toml.new")).unwrap();
    write(&mut directory, [2]);
}

/// What is long is compressed, what is damaged of it noticed.
#[test]
fn long_generations_take_little_room() {
    let (_folder, path) = place();
    let (mut directory, _) = open(&path);
    let backend = |n: u32| format!("{{ address = \"10.0.{}.{}:80\" }}, ", n >> 8, n & 255);
    let service = |host: u32| {
        let backends: String = (host * 1000..host * 1000 + 1000).map(backend).collect();
        format!(
            "[[service]]\nname = \"s{host}\"\nvip = \"192.0.2.{host}:80\"\nprotocol = \"tcp\"\nmode = \"ipip\"\n\
             backends = [{backends}]\n"
        )
    };
    let text: String = (1..=10).map(service).collect();
    let wanted = parse_text(&text, "text".as_ref()).unwrap().desired;
    directory.write(&generation(1), &wanted).unwrap();
    let file = path.join("generation-1.toml");
    let bytes = fs::read(&file).unwrap();
    assert!(bytes.starts_with(&LZ4) && bytes.len() < LONG, "{} bytes", bytes.len());
    drop(directory);
    let (directory, found) = open(&path);
    assert_eq!(found.newest.map(|(_, desired)| desired), Some(wanted));
    drop(directory);
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let (_, found) = open(&path);
    assert!(found.newest.is_none() && found.damaged.len() == 1, "{:?}", found.damaged);
}
