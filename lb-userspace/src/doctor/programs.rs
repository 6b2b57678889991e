//! Whose XDP programs are on the interfaces.

use std::collections::BTreeMap;

use super::Finding;
use crate::view::XdpStatus;

/// Whether an interface is free for the program, or has it; `ours` is what is pinned, if that is known.
pub fn occupant(name: &str, programs: &BTreeMap<String, u32>, ours: Option<&XdpStatus>) -> Finding {
    let check = format!("{name} xdp");
    let Some(program) = programs.get(name) else { return Finding::well(check, "no program") };
    let Some(ours) = ours else { return Finding::well(check, format!("program {program}")) };
    if ours.interfaces.iter().any(|one| one.program == *program) {
        return Finding::well(check, format!("program {program}, which is lb's"));
    }
    Finding::bad(
        check,
        format!("program {program}, which is not pinned below {}", ours.pins.display()),
        "an interface runs one program at a time, so lb does not start as long as another one is there",
    )
    .mended_by(format!("bpftool prog show id {program}; ip link set dev {name} xdp off"))
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;
    use crate::view::XdpInterface;

    #[test]
    fn somebody_elses_program_is_in_the_way() {
        let ours = XdpInterface { name: "eth0".to_owned(), mode: None, program: 7, since_seconds: None };
        let ours = XdpStatus { pins: "/sys/fs/bpf/lb".into(), daemon: None, interfaces: vec![ours] };
        let programs = BTreeMap::from([("eth0".to_owned(), 7), ("eth1".to_owned(), 9)]);
        let severity = |name: &str, ours| occupant(name, &programs, ours).severity;
        assert_eq!(severity("eth0", Some(&ours)), Severity::Well);
        assert_eq!(severity("eth1", Some(&ours)), Severity::Bad);
        assert_eq!(severity("eth1", None), Severity::Well, "who may not look at the pins cannot tell");
        assert_eq!(severity("eth2", Some(&ours)), Severity::Well);
    }
}
