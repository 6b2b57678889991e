//! Services of the kernel's own balancer, IPVS, as services of ours: what `ipvsadm-save -n` writes (ipvsadm(8)).
//!
//! Every scheduler becomes Maglev hashing, which none of them is: connections spread alike, but one that IPVS has goes to
//! another server when it comes by here. What has no counterpart is refused, line by line, or told if nothing depends on it.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::config::{ServiceKeys, read_service};
use crate::model::Service;

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The services, in the order of their VIPs.
    pub services: Vec<Service>,
    /// What was left out that changes no packet's way, a sentence each.
    pub notes: Vec<String>,
}

/// A line that has no counterpart, or makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Its number, counted from 1; 0 if it is about a service as a whole.
    pub line: usize,
    /// What is wrong, a sentence.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        f.write_str(&self.message)
    }
}

/// A virtual service: its protocol and its address.
type Key = (&'static str, String);

/// What lines have said of a service so far.
#[derive(Default)]
struct Draft {
    keys: Map<String, Value>,
    backends: Vec<Value>,
}

/// Reads what `ipvsadm-save -n` has written, or tells all that is wrong with it.
pub fn import(text: &str) -> Result<Imported, Vec<Mistake>> {
    let mut drafts: BTreeMap<Key, Draft> = BTreeMap::new();
    let (mut notes, mut mistakes) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let result = match words.split_first() {
            None => Ok(()),
            Some((&("-A" | "--add-service"), rest)) => add_service(&mut drafts, rest, &mut notes),
            Some((&("-a" | "--add-server"), rest)) => add_server(&mut drafts, rest),
            Some((other, _)) => Err(format!("{other:?} begins no line of ipvsadm-save")),
        };
        mistakes.extend(result.err().map(|message| Mistake { line: number, message }));
    }
    let services = drafts.into_values().filter_map(|draft| {
        let read = finish(draft);
        read.map_err(|message| mistakes.push(Mistake { line: 0, message })).ok()
    });
    let services: Vec<Service> = services.collect();
    if mistakes.is_empty() { Ok(Imported { services, notes }) } else { Err(mistakes) }
}

/// The words of a line, an option and its value after the other.
struct Words<'w>(std::slice::Iter<'w, &'w str>);

impl<'w> Words<'w> {
    fn next(&mut self) -> Option<&'w str> {
        self.0.next().copied()
    }

    fn value(&mut self, option: &str) -> Result<&'w str, String> {
        self.next().ok_or_else(|| format!("{option} has no value"))
    }
}

fn key(option: &str, value: &str) -> Result<Key, String> {
    let protocol = match option {
        "-t" | "--tcp-service" => "tcp",
        "-u" | "--udp-service" => "udp",
        _ => {
            return Err(format!("{option} {value}: services are chosen by address, protocol and port alone"));
        }
    };
    let (_, port) = value.rsplit_once(':').ok_or_else(|| format!("{value} has no port"))?;
    if port.parse::<u16>().is_err() {
        return Err(format!("{value}: port {port:?} is a name; write numbers, with ipvsadm-save -n"));
    }
    // Port 0 of IPVS is every port.
    let vip = value.strip_suffix(":0").map_or_else(|| value.to_owned(), |address| format!("{address}:*"));
    Ok((protocol, vip))
}

fn add_service(
    drafts: &mut BTreeMap<Key, Draft>,
    words: &[&str],
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let mut words = Words(words.iter());
    let option = words.next().ok_or("a service without address")?;
    let key = key(option, words.value(option)?)?;
    let mut keys = Map::new();
    while let Some(option) = words.next() {
        match option {
            "-s" | "--scheduler" => {
                let scheduler = words.value(option)?;
                if scheduler != "mh" {
                    notes.push(format!("{} {}: scheduler {scheduler} becomes Maglev hashing", key.0, key.1));
                }
            }
            "-p" | "--persistent" => {
                words.value(option)?;
                keys.insert("affinity".to_owned(), json!("source"));
            }
            "-b" | "--sched-flags" => drop(words.value(option)?),
            _ => return Err(format!("{option} has no counterpart")),
        }
    }
    keys.insert("name".to_owned(), json!(name(&key)));
    keys.insert("vip".to_owned(), json!(key.1));
    keys.insert("protocol".to_owned(), json!(key.0));
    let draft = Draft { keys, backends: Vec::new() };
    match drafts.insert(key, draft) {
        None => Ok(()),
        Some(_) => Err("the service is there twice".to_owned()),
    }
}

/// A name of the letters that names may have.
fn name((protocol, vip): &Key) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let address: String = vip.trim_start_matches('[').replace("]:", "-").chars().map(plain).collect();
    format!("{protocol}-{}", address.trim_end_matches('-'))
}

fn add_server(drafts: &mut BTreeMap<Key, Draft>, words: &[&str]) -> Result<(), String> {
    let mut words = Words(words.iter());
    let option = words.next().ok_or("a server without service")?;
    let key = key(option, words.value(option)?)?;
    let draft =
        drafts.get_mut(&key).ok_or_else(|| format!("no line before adds service {} {}", key.0, key.1))?;
    let mut backend = Map::new();
    let (mut mode, mut port) = ("dsr-l2", None);
    while let Some(option) = words.next() {
        match option {
            "-r" | "--real-server" => {
                let server = words.value(option)?;
                let server =
                    server.strip_suffix(":0").map_or_else(|| server.to_owned(), |own| format!("{own}:*"));
                backend.insert("address".to_owned(), json!(server));
            }
            "-g" | "--gatewaying" => mode = "dsr-l2",
            "-i" | "--ipip" => mode = "ipip",
            "-m" | "--masquerading" => mode = "nat",
            "-w" | "--weight" => {
                let weight = words.value(option)?;
                let number: u16 =
                    weight.parse().map_err(|_| format!("weight {weight} is not from 0 to 65535"))?;
                backend.insert("weight".to_owned(), json!(number));
            }
            "--tun-type" => match words.value(option)? {
                "ipip" => {}
                "gue" => mode = "gue",
                other => return Err(format!("tunnels of kind {other} have no counterpart")),
            },
            "--tun-port" => {
                let value = words.value(option)?;
                port = Some(value.parse::<u16>().map_err(|_| format!("{value} is no port"))?);
            }
            "--tun-nocsum" | "--tun-csum" | "--tun-remcsum" => {}
            "-x" | "--u-threshold" | "-y" | "--l-threshold" => {
                return Err(format!("{option}: there is no limit of connections for a server"));
            }
            _ => return Err(format!("{option} has no counterpart")),
        }
    }
    if let Some(other) = draft.keys.insert("mode".to_owned(), json!(mode)).filter(|other| other != mode) {
        return Err(format!("the servers of one service have one mode, and another has {other}"));
    }
    if let Some(port) = port {
        draft.keys.insert("gue_port".to_owned(), json!(port));
    }
    draft.backends.push(Value::Object(backend));
    Ok(())
}

fn finish(Draft { mut keys, backends }: Draft) -> Result<Service, String> {
    keys.entry("mode").or_insert_with(|| json!("dsr-l2"));
    let name = keys.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    keys.insert("backends".to_owned(), Value::Array(backends));
    read_service(&ServiceKeys(keys)).map_err(|sentences| format!("service {name}: {}", sentences.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::render_service;

    const SAVED: &str = "-A -t 192.0.2.10:80 -s wrr\n\
        -a -t 192.0.2.10:80 -r 10.0.1.1:80 -g -w 1\n\
        -a -t 192.0.2.10:80 -r 10.0.1.2:80 -g -w 0\n\
        -A -u [2001:db8::53]:53 -s mh -p 360 -M 128\n";

    #[test]
    fn services_become_sections_of_the_configuration() {
        let text = "-A -t 192.0.2.10:80 -s wrr\n\
            -a -t 192.0.2.10:80 -r 10.0.1.1:80 -g -w 1\n\
            -a -t 192.0.2.10:80 -r 10.0.1.2:80 -g -w 0\n\
            -A -u [2001:db8::53]:53 -s mh -p 360\n\
            -a -u [2001:db8::53]:53 -r [fd00::1]:53 -i -w 7 --tun-type gue --tun-port 6081\n\
            -A -t 192.0.2.11:0 -s rr -p 60\n\
            -a -t 192.0.2.11:0 -r 10.0.1.3:0 -m -w 1\n";
        let Imported { services, notes } = import(text).unwrap();
        let sections: String = services.iter().map(render_service).collect();
        for line in [
            "name = \"tcp-192.0.2.10-80\"",
            "vip = \"192.0.2.10:80\"",
            "mode = \"dsr-l2\"",
            "{ address = \"10.0.1.2:80\", weight = 0 }",
            "name = \"udp-2001-db8--53-53\"",
            "affinity = \"source\"",
            "gue_port = 6081",
            "vip = \"192.0.2.11:*\"",
            "mode = \"nat\"",
        ] {
            assert!(sections.contains(line), "no {line} in {sections}");
        }
        assert_eq!(services.len(), 3);
        assert_eq!(
            notes,
            [
                "tcp 192.0.2.10:80: scheduler wrr becomes Maglev hashing",
                "tcp 192.0.2.11:*: scheduler rr becomes Maglev hashing"
            ]
        );
    }

    #[test]
    fn what_has_no_counterpart_is_told_line_by_line() {
        let told = |text: &str| {
            let mistakes = import(text).unwrap_err();
            mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(told(SAVED), "line 4: -M has no counterpart");
        assert_eq!(
            told("-A -f 7 -s rr"),
            "line 1: -f 7: services are chosen by address, protocol and port alone"
        );
        assert_eq!(
            told("-A -t lb:http -s rr"),
            "line 1: lb:http: port \"http\" is a name; write numbers, with ipvsadm-save -n"
        );
        let mixed = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.1:80 -g\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n";
        assert_eq!(
            told(mixed),
            "line 3: the servers of one service have one mode, and another has \"dsr-l2\""
        );
        assert_eq!(
            told("-a -t 192.0.2.1:80 -r 10.0.0.1:80"),
            "line 1: no line before adds service tcp 192.0.2.1:80"
        );
        assert_eq!(told("hello"), "line 1: \"hello\" begins no line of ipvsadm-save");
        assert!(told("-A -t 192.0.2.300:80 -s rr").starts_with("service tcp-192.0.2.300-80: vip: "));
        assert_eq!(told("-A -t"), "line 1: -t has no value");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(-[Aatugimrws]|[0-9.:\\[\\]]{1,9}| |\n|[a-z]{1,4}){0,40}") {
            if let Err(mistakes) = import(&text) {
                assert!(!mistakes.is_empty());
            }
        }
    }
}
