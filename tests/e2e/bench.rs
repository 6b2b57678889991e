//! The measuring harness: that it measures what it says.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::process::Process;
use lb_tests::tools::Tools;
use lb_tests::wait;
use rustix::process::Signal;
use serde_json::Value;

use crate::cases::{Case, cases};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        "bench": a_case_costs_more_than_its_floor,
        an_unknown_case_is_named,
        forwarded_packets_are_counted_and_none_is_lost,
        changes_of_a_daemon_are_timed,
        nothing_is_left_after_an_interrupt,
    ]
}

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb-bench"));
    command.args(arguments);
    command
}

/// Runs it to its end and returns what it wrote with `--json`.
fn report(arguments: &[&str]) -> Result<Value> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("bench.json");
    let output = bench(arguments).arg("--json").arg(&file).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&std::fs::read(&file)?)?)
}

fn a_case_costs_more_than_its_floor(_: Tools) -> Result<()> {
    let report = report(&["limiter_exact_hot"])?;
    let size = &report["program"];
    let sizes = ["verified_instructions", "translated_bytes", "jited_bytes"].map(|name| size[name].as_u64());
    ensure!(sizes.iter().all(|size| size.is_some_and(|size| size > 1000)), "{size}");
    let cases = report["cases"].as_array().context("no cases")?;
    let median = |case: &Value| Some((case["name"].as_str()?.to_owned(), case["ns_median"].as_f64()?));
    let medians: BTreeMap<String, f64> = cases.iter().filter_map(median).collect();
    let [floor, case] = ["encap20_floor", "limiter_exact_hot"].map(|name| medians.get(name).copied());
    let (floor, case) = (floor.context("no floor")?, case.context("no case")?);
    // The case does all that the floor does, reads a clock and seven tables besides.
    ensure!(medians.len() == 2 && floor < case && case < 100_000.0, "{medians:?}");
    Ok(())
}

fn an_unknown_case_is_named(_: Tools) -> Result<()> {
    let output = bench(&["warp_speed"]).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "it ended with {}", output.status);
    ensure!(complaint.contains("there is no case warp_speed; there are: pass_floor, "), "{complaint}");
    Ok(())
}

fn forwarded_packets_are_counted_and_none_is_lost(_: Tools) -> Result<()> {
    for arguments in [&["forward", "--seconds", "1"][..], &["forward", "--seconds", "1", "--one-cpu"]] {
        ensure_forwarded(&report(arguments)?["forward"])?;
    }
    Ok(())
}

fn ensure_forwarded(forward: &Value) -> Result<()> {
    let count = |of: &Value, name| of[name].as_u64().with_context(|| format!("no {name} in {of}"));
    let contenders = forward["contenders"].as_array().context("no contenders")?;
    let mut sum = 0;
    for contender in contenders {
        let [sent, received] = [count(contender, "sent")?, count(contender, "received")?];
        ensure!(sent > 1000 && received == sent && count(contender, "lost")? == 0, "{contender}");
        sum += sent;
    }
    ensure!(contenders.len() == 5 && sum == count(forward, "sent")?, "{forward}");
    ensure!(count(forward, "received")? == sum && count(forward, "lost")? == 0, "{forward}");
    let names = ["reflector_mpps", "lb_tx_mpps", "lb_ipip_tx_mpps", "lb_redirect_mpps", "nftables_mpps"];
    let rates = names.map(|name| forward[name].as_f64().unwrap_or_default());
    let [reflector, balanced @ .., nftables] = rates;
    ensure!(balanced.iter().all(|rate| *rate > nftables) && nftables > 0.0 && reflector > 0.0, "{forward}");
    let ratios =
        ["ratio_to_reflector", "ratio_to_nftables"].map(|name| forward[name].as_f64().unwrap_or_default());
    ensure!(ratios[0] > 0.1 && ratios[1] > 1.0, "{forward}");
    Ok(())
}

fn changes_of_a_daemon_are_timed(_: Tools) -> Result<()> {
    let sizes = ["--services", "20", "--backends", "10", "--table-size", "251", "--changes", "20"];
    let report = report(&[&["control"][..], &sizes].concat())?;
    let control = &report["control"];
    let figure = |name| control[name].as_f64().with_context(|| format!("no {name} in {control}"));
    let times = ["change_ms_p50", "change_ms_p99", "change_ms_max", "apply_ms"].map(figure);
    let times = times.into_iter().collect::<Result<Vec<_>>>()?;
    // A change is not over before it is on the disk, nor a start before the program is verified.
    ensure!(times.is_sorted() && times.iter().all(|ms| *ms > 0.1), "{control}");
    ensure!(figure("rss_mib")? > 1.0 && figure("peak_mib")? >= figure("rss_mib")?, "{control}");
    ensure!(control["changes"] == 20 && figure("status_ms")? > 1.0, "{control}");
    Ok(())
}

fn nothing_is_left_after_an_interrupt(_: Tools) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let command = bench(&["forward", "--seconds", "60"]);
    let mut process = Process::spawn_logged("lb-bench", command, &directory.path().join("log"))?;
    let prefix = format!("lb{}-", process.id());
    let thread = format!("napi/lb{}n3-", process.id());
    wait::until(Duration::from_secs(20), "its network is polled", || {
        ensure!(kernel_threads(&thread)? == 1, "{thread} is not there; its log:\n{}", process.log());
        Ok(())
    })?;
    ensure!(namespaces(&prefix)?.len() == 3, "it has {:?}", namespaces(&prefix)?);
    process.signal(Signal::INT)?;
    let status = wait::until(Duration::from_secs(20), "it ends", || {
        process.ended()?.with_context(|| "it still runs".to_owned())
    })?;
    ensure!(status.code() == Some(130), "it ended with {status}:\n{}", process.log());
    ensure!(namespaces(&prefix)?.is_empty(), "namespaces are left: {:?}", namespaces(&prefix)?);
    Ok(())
}

fn namespaces(prefix: &str) -> Result<Vec<String>> {
    let entries = std::fs::read_dir("/run/netns")?.collect::<Result<Vec<_>, _>>()?;
    let names = entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.starts_with(prefix)).collect())
}

fn kernel_threads(prefix: &str) -> Result<usize> {
    let names = std::fs::read_dir("/proc")?.flatten().map(|process| process.path().join("comm"));
    Ok(names.filter(|name| std::fs::read_to_string(name).is_ok_and(|name| name.starts_with(prefix))).count())
}
