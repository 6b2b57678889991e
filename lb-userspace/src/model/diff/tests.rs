use proptest::prelude::*;

use super::*;
use crate::config::parse_text;
use crate::config::render_tests::desired;

proptest! {
    #[test]
    fn a_difference_makes_the_second_of_the_first(from in desired(), to in desired()) {
        let differences = diff(&from, &to);
        prop_assert_eq!(&apply(&differences, &from), &to, "{:?}", lines(&differences));
        prop_assert_eq!(differences.is_empty(), from == to);
        prop_assert!(diff(&from, &from).is_empty());
    }
}

fn read(text: &str) -> Desired {
    parse_text(text, "text".as_ref()).unwrap_or_else(|error| panic!("{error}")).desired
}

/// Two services, one of which `more` changes.
fn web(more: &str) -> Desired {
    let head = |name: &str, last: u8| {
        format!(
            "[[service]]\nname = \"{name}\"\nvip = \"192.0.2.{last}:80\"\nprotocol = \"udp\"\nmode = \"gue\"\n"
        )
    };
    read(&format!("{}{more}\n{}", head("web", 10), head("other", 11)))
}

fn told(from: &Desired, to: &Desired) -> String {
    lines(&diff(from, to)).join("\n")
}

#[test]
fn differences_are_told_a_line_each() {
    let before = web(r#"limit = [{ scope = "source", packets = "1k/s", burst = 200, action = "drop" }]
        backends = [{ address = "10.0.1.3:80" }, { address = "10.0.1.4:80" }, { address = "10.0.1.5:80" }]"#);
    let after = web(r#"affinity = "source"
        quic = true
        idle_timeout = "90s"
        announce = "l2"
        outer_source = "10.99.0.0/16"
        gue_port = 6081
        table_size = 251
        health = { kind = "tcp" }
        limit = [{ scope = "source", packets = "2k/s", burst = 200, action = "drop" }]
        backends = [
            { address = "10.0.1.9:80", state = "drain" },
            { address = "10.0.1.4:80", state = "drain" },
            { address = "10.0.1.3:80", weight = 50 },
        ]"#);
    let expected = "~ service web: gue_port default -> 6081\n\
        ~ service web: outer_source default -> 10.99.0.0/16\n\
        ~ service web: affinity flow -> source\n\
        ~ service web: quic false -> true\n\
        ~ service web: idle_timeout default -> 90s\n\
        ~ service web: announce none -> l2\n\
        ~ service web: table_size 65537 -> 251\n\
        ~ service web: health none -> tcp(interval=1s timeout=500ms rise=2 fall=3)\n\
        ~ service web: limiter source-packets: 1000 packets/s per source, burst 200 -> 2000 packets/s per source, \
        burst 200\n\
        - service web: backend 10.0.1.5:80\n\
        + service web: backend 10.0.1.9:80 weight 100, drain\n\
        ~ service web: backend 10.0.1.4:80 ready -> drain\n\
        ~ service web: backend 10.0.1.3:80 weight 100 -> 50\n\
        ~ service web: its backends in another order";
    assert_eq!(told(&before, &after), expected);
}

#[test]
fn services_lists_and_shared_limiters_come_and_go() {
    let before = read(
        "[lists]\ndeny = [\"10.0.0.0/8\"]\n[[limit]]\nname = \"a\"\nscope = \"service\"\npackets = \"1k/s\"\n\
         burst = 100\naction = \"shadow\"\n[[service]]\nname = \"a\"\nvip = \"192.0.2.10:80\"\nprotocol = \"tcp\"\n\
         mode = \"ipip\"\nbackends = [{ address = \"10.0.1.1:80\" }]\n",
    );
    let expected = "- deny: 10.0.0.0/8\n\
        - all services: limiter a\n\
        - service a: 192.0.2.10:80 tcp, ipip to 1 backend";
    assert_eq!(told(&before, &Desired::default()), expected);
    let expected = "+ deny: 10.0.0.0/8\n\
        + all services: limiter a: 1000 packets/s in all, burst 100, counts only\n\
        + service a: 192.0.2.10:80 tcp, ipip to 1 backend";
    assert_eq!(told(&Desired::default(), &before), expected);
    let allowed: Vec<String> = (0..12).map(|last| format!("\"10.0.0.{last}\"")).collect();
    let many = read(&format!("[lists]\nallow = [{}]\n", allowed.join(", ")));
    let lines = told(&Desired::default(), &many);
    assert_eq!(lines.lines().count(), 11);
    assert!(lines.ends_with("+ allow: 10.0.0.9\n+ allow: 2 more"), "{lines}");
}
