//! Whose XDP programs are on the interfaces.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{LinkAttribute, LinkXdp};
use tokio::task::JoinSet;

use super::Finding;
use crate::view::XdpStatus;

/// The program of each interface that has one, by its number (`IFLA_XDP_PROG_ID` of `include/uapi/linux/if_link.h`).
///
/// # Errors
///
/// A sentence, if the kernel does not say.
pub async fn programs() -> Result<BTreeMap<String, u32>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot list the interfaces: {error}");
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| failed(&error))?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let mut links = handle.link().get().execute();
    let mut found = BTreeMap::new();
    while let Some(link) = links.try_next().await.map_err(|error| failed(&error))? {
        let (mut name, mut program) = (None, None);
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(own) => name = Some(own),
                LinkAttribute::Xdp(attributes) => {
                    program = attributes.iter().find_map(|one| match one {
                        LinkXdp::ProgId(id) => Some(*id),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        found.extend(name.zip(program));
    }
    Ok(found)
}

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
