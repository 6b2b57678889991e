//! `cargo xtask vm`: the tests on other kernels, in virtual machines.
//!
//! A machine has no disk: a kernel of Debian, an archive with the tests, what they call, and an init of our own
//! (`tests/src/bin/lb-init.rs`). It says what its tests say, how many there were, and ends with an agreed status.

mod archive;
mod kernels;
mod machine;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::BufWriter,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

pub(crate) use self::kernels::series;
use self::{
    archive::Archive,
    kernels::{Kernel, finished},
    machine::{Outcome, Task},
};
use crate::{
    cargo::{self, HOST, words},
    libtest::Tally,
    setup::{self, Purpose},
};

/// Kernels that are tried if nothing else is said: the oldest that is supported, those of Debian 12's and 13's backports, and
/// the newest.
pub(crate) const SERIES: [&str; 4] = ["6.1", "6.12", "6.18", "7.3"];

/// Of these, what every run of all tests tries: the oldest, and the one in between that people have.
pub(crate) const TESTED: [&str; 2] = ["6.1", "6.12"];

/// What kernels need for our tests and do not have built in; what a kernel lacks it does not load.
const MODULES: [&str; 19] = [
    "veth",
    "dummy",
    "8021q",
    "bonding",
    "macvlan",
    "vxlan",
    "tun",
    "ipip",
    "sit",
    "ip6_tunnel",
    "fou",
    "fou6",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_sh",
    "ip_vs_mh",
    "nf_tables",
    "nft_nat",
    "sch_netem",
];

/// What tests call.
const PROGRAMS: [&str; 26] = [
    "bash", "cat", "chmod", "curl", "env", "ethtool", "head", "ip", "ipvsadm", "kill", "ls", "mkdir",
    "mount", "nft", "nsenter", "rm", "script", "sed", "setpriv", "sh", "sleep", "ss", "stty", "sysctl",
    "umount", "unshare",
];

/// Which tests are run in each machine if nothing else is said: test binaries and parts of names. First how the kernel judges every
/// fixture, then whether packets arrive in every mode, then what the kernel of this machine may not have: tunnel devices, bonds,
/// VLANs, IPVS.
const USUAL: [(&str, &str); 4] =
    [("packets", "kernel::"), ("e2e", "delivery::"), ("e2e", "devices::"), ("e2e", "ipvs::")];

/// Which of them every run of all tests runs: what is emulated takes minutes for what takes seconds else.
const QUICK: [(&str, &str); 1] = [("packets", "kernel::")];

/// How many machines run at once beside nothing else.
const MACHINES: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// What to run where.
pub(crate) struct Plan {
    pub(crate) series: Vec<String>,
    pub(crate) jobs: NonZeroUsize,
    pub(crate) tests: Tests,
}

/// Which tests are run in each machine.
pub(crate) enum Tests {
    /// [`USUAL`].
    Usual,
    /// [`QUICK`].
    Quick,
    /// Those of `packets` and `e2e` with this in their names.
    Named(String),
}

impl Tests {
    /// Test binaries and parts of names.
    fn chosen(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Usual => USUAL.to_vec(),
            Self::Quick => QUICK.to_vec(),
            Self::Named(name) => vec![("packets", name.as_str()), ("e2e", name.as_str())],
        }
    }
}

/// Fetches kernels.
pub(crate) fn fetch(series: &[String]) -> Result<()> {
    ensure!(has_qemu(), "{NO_QEMU}");
    kernels::fetch(&folder()?, series)
}

/// Makes a Debian that is ours ready to test on [`TESTED`]: installs QEMU, fetches what has not been fetched.
pub(crate) fn prepare() -> Result<()> {
    let folder = folder()?;
    if !has_qemu() {
        println!("Installing QEMU");
        kernels::install_qemu(&folder)?;
    }
    let mut missing = Vec::new();
    for series in TESTED {
        if kernels::find(&folder, series)?.is_none() {
            missing.push(series.to_owned());
        }
    }
    if missing.is_empty() { Ok(()) } else { kernels::fetch(&folder, &missing) }
}

/// Whether the tests can be run on [`TESTED`].
pub(crate) fn is_ready() -> bool {
    let has =
        |series: &&str| folder().is_ok_and(|folder| matches!(kernels::find(&folder, series), Ok(Some(_))));
    has_qemu() && TESTED.iter().all(has)
}

/// The tests on [`TESTED`], counted; one skip if there is no QEMU or a kernel is missing.
pub(crate) fn test() -> Result<Tally> {
    if !is_ready() {
        let reason = if has_qemu() { "cargo xtask vm fetch" } else { NO_QEMU };
        return Ok(Tally::skip(format!("Linux {}: {reason}", TESTED.join(" and "))));
    }
    let plan = Plan { series: TESTED.map(str::to_owned).into(), jobs: MACHINES, tests: Tests::Quick };
    let mut tally = Tally::default();
    for (kernel, outcome) in run(&plan)? {
        let failure = outcome.failure.filter(|_| outcome.tally.failed == 0).map(Tally::failure);
        tally.add(failure.unwrap_or(outcome.tally).named(&format!("Linux {}", kernel.series)));
    }
    Ok(tally)
}

const NO_QEMU: &str = "qemu-system-x86_64 is missing: apt-get install --no-install-recommends qemu-system-x86 (on Debian 12 beside \
                       qemu-utils of the backports: with --target-release bookworm-backports)";

fn has_qemu() -> bool {
    setup::find_program("qemu-system-x86_64").is_some()
}

fn folder() -> Result<PathBuf> {
    let target = cargo::binary("vm", "")?;
    fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
    Ok(target)
}

/// Runs the tests on each kernel, and says what came of it in a table.
pub(crate) fn run(plan: &Plan) -> Result<Vec<(Kernel, Outcome)>> {
    setup::ensure(Purpose::Run)?;
    ensure!(has_qemu(), "{NO_QEMU}");
    let folder = folder()?;
    let kernels = kernels_of(&folder, &plan.series)?;
    let built = Built::new(&folder)?;
    let tasks = tasks(&built, &plan.tests)?;
    let queue = Mutex::new(kernels.iter());
    let (told, outcomes) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..plan.jobs.get() {
            let (queue, told, folder, built, tasks) = (&queue, told.clone(), &folder, &built, &tasks);
            scope.spawn(move || {
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some(kernel) = next() {
                    println!("Linux {} ({}) boots", kernel.series, kernel.version);
                    let outcome = pack(folder, kernel, built, &tasks.lines)
                        .and_then(|()| boot(folder, kernel, tasks.expected, "tests", LIMIT));
                    if told.send((kernel.clone(), outcome)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    drop(told);
    let mut rows = Vec::new();
    for (kernel, outcome) in outcomes {
        rows.push((kernel, outcome?));
    }
    rows.sort_by_key(|(kernel, _)| plan.series.iter().position(|series| *series == kernel.series));
    print!("\n{}", table(&tasks.names, &rows));
    for (kernel, outcome) in &rows {
        if let Some(failure) = &outcome.failure {
            println!("Linux {}: {failure}; {}", kernel.series, log(&folder, kernel, "tests").display());
            print!("{}", Tally::list(&outcome.tally.failures));
        }
    }
    Ok(rows)
}

/// How long a machine may take: what is emulated takes ten times as long as else.
const LIMIT: Duration = Duration::from_mins(40);

fn kernels_of(folder: &Path, series: &[String]) -> Result<Vec<Kernel>> {
    let find = |series: &String| {
        let found = kernels::find(folder, series)?;
        found.with_context(|| format!("Linux {series} is not there: cargo xtask vm fetch --kernel {series}"))
    };
    series.iter().map(find).collect()
}

/// A machine that fails in each way is told from one that passes.
pub(crate) fn self_test(series: &str) -> Result<()> {
    setup::ensure(Purpose::Run)?;
    ensure!(has_qemu(), "{NO_QEMU}");
    let folder = folder()?;
    let built = Built::new(&folder)?;
    let kernels = kernels_of(&folder, &[series.to_owned()])?;
    pack(&folder, &kernels[0], &built, "")?;
    for (argument, reason) in [
        ("pass", None),
        ("fail", Some("1 tests failed")),
        ("few", Some("1 tests passed, 2 had to")),
        ("panic", Some("the kernel panicked")),
        ("silent", Some("did not say how many")),
        ("hang", Some("still ran")),
    ] {
        let expected = if argument == "few" { 2 } else { 1 };
        let within = if argument == "hang" { Duration::from_secs(30) } else { Duration::from_mins(2) };
        let outcome = boot(&folder, &kernels[0], expected, argument, within)?;
        let as_expected = match (reason, &outcome.failure) {
            (None, None) => true,
            (Some(reason), Some(failure)) => failure.contains(reason),
            _ => false,
        };
        ensure!(as_expected, "a machine that is to {argument}: {:?}", outcome.failure);
        println!("a machine that is to {argument}: {}", outcome.failure.as_deref().unwrap_or("passed"));
    }
    Ok(())
}

/// What a machine runs.
struct Tasks {
    /// A binary, a tab and a filter on each line.
    lines: String,
    /// What each line is called in the table.
    names: Vec<String>,
    /// How many tests these are.
    expected: u64,
}

fn tasks(built: &Built, tests: &Tests) -> Result<Tasks> {
    let mut tasks = Tasks { lines: String::new(), names: Vec::new(), expected: 0 };
    for (binary, filter) in tests.chosen() {
        let mut list = Command::new(built.test(binary)?);
        list.args(["--list", filter]).env("LB_BIN", &built.lb);
        let listed = finished(&mut list)?;
        let count =
            String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.ends_with(": test")).count();
        if count > 0 {
            writeln!(tasks.lines, "{binary}\t{filter}")?;
            tasks.names.push(format!("{binary} {filter}"));
            tasks.expected += count as u64;
        }
    }
    if tasks.expected == 0 {
        let of = |(binary, part): (&str, &str)| format!("{binary} has no test with {part:?} in its name");
        bail!(
            "{}: there is nothing to run",
            tests.chosen().into_iter().map(of).collect::<Vec<_>>().join(", ")
        );
    }
    Ok(tasks)
}

/// What was built for the machines.
struct Built {
    init: PathBuf,
    lb: PathBuf,
    lab: PathBuf,
    /// Test binaries by name.
    tests: Vec<(String, PathBuf)>,
    /// The same without debug information, where machines get them from.
    stripped: PathBuf,
}

impl Built {
    fn new(folder: &Path) -> Result<Self> {
        cargo::run(&words(&format!("build --quiet {HOST} --bins --test e2e --test packets")))?;
        let mut tests = Vec::new();
        for name in ["packets", "e2e"] {
            let mut build = cargo::command(&words(&format!("test --no-run {HOST} --test {name}")))?;
            let said = finished(&mut build)?;
            let said = String::from_utf8_lossy(&said.stderr).into_owned();
            let path = said.lines().find_map(|line| line.trim().strip_prefix("Executable")?.rsplit_once('('));
            let path = path.with_context(|| format!("cargo does not say where {name} is: {said}"))?.1;
            tests.push((name.to_owned(), cargo::root().join(path.trim_end_matches(')'))));
        }
        let binary = |name| cargo::binary("debug", name);
        let built = Self {
            init: binary("lb-init")?,
            lb: binary("lb")?,
            lab: binary("lb-lab")?,
            tests,
            stripped: folder.join("stripped"),
        };
        fs::create_dir_all(&built.stripped)?;
        for (name, path) in built.all() {
            finished(Command::new("strip").arg("-o").arg(built.stripped.join(name)).arg(path))?;
        }
        Ok(built)
    }

    fn test(&self, name: &str) -> Result<&Path> {
        let found = self.tests.iter().find(|(known, _)| known == name);
        Ok(&found.with_context(|| format!("there is no test binary {name}"))?.1)
    }

    fn all(&self) -> impl Iterator<Item = (&str, &Path)> {
        let tests = self.tests.iter().map(|(name, path)| (name.as_str(), path.as_path()));
        [("init", self.init.as_path()), ("lb", &self.lb), ("lb-lab", &self.lab)].into_iter().chain(tests)
    }
}

fn log(folder: &Path, kernel: &Kernel, argument: &str) -> PathBuf {
    folder.join(&kernel.series).join(format!("{argument}.log"))
}

fn archive(folder: &Path, kernel: &Kernel) -> PathBuf {
    folder.join(&kernel.series).join("archive.cpio")
}

fn boot(folder: &Path, kernel: &Kernel, expected: u64, argument: &str, within: Duration) -> Result<Outcome> {
    let (archive, log) = (archive(folder, kernel), log(folder, kernel, argument));
    machine::run(kernel, &Task { archive: &archive, log: &log, expected, argument, within })
}

/// Writes the file system of a kernel's machine, whose init finds these tasks.
fn pack(folder: &Path, kernel: &Kernel, built: &Built, tasks: &str) -> Result<()> {
    let path = archive(folder, kernel);
    let file = fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    for folder in ["/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/var/lib", "/usr/bin"] {
        archive.directory(Path::new(folder))?;
    }
    for folder in ["/bin", "/sbin"] {
        archive.link(Path::new(folder), "usr/bin")?;
    }
    archive.link(Path::new("/usr/sbin"), "bin")?;
    archive.bytes(
        Path::new("/etc/passwd"),
        b"root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        0o644,
    )?;
    archive.bytes(Path::new("/etc/group"), b"root:x:0:\nnogroup:x:65534:\n", 0o644)?;
    archive.bytes(Path::new("/etc/machine-id"), b"0123456789abcdef0123456789abcdef\n", 0o444)?;
    let mut libraries = BTreeSet::new();
    for (name, path) in built.all() {
        let to = if name == "init" { PathBuf::from("/init") } else { Path::new("/lb").join(name) };
        archive.file(&built.stripped.join(name), &to)?;
        libraries.extend(libraries_of(path)?);
    }
    // Tests know where it was built.
    archive.link(&built.lab, "/lb/lb-lab")?;
    for name in PROGRAMS {
        let Some(path) = setup::find_program(name) else { continue };
        archive.file(&path, &Path::new("/usr/bin").join(name))?;
        libraries.extend(libraries_of(&path)?);
    }
    for library in libraries {
        archive.file(&library, &library)?;
    }
    for (number, (name, bytes)) in kernels::modules(kernel, &MODULES)?.into_iter().enumerate() {
        archive.bytes(&Path::new("/modules").join(format!("{number:03}-{name}.ko")), &bytes, 0o644)?;
    }
    archive.bytes(Path::new("/tasks"), tasks.as_bytes(), 0o644)?;
    archive.finish()
}

/// The libraries that a program is started with, as `ldd` tells them.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let library = |line: &str| {
        let path = line.split_once("=> ").map_or(line, |(_, path)| path).split_whitespace().next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    Ok(text.lines().filter_map(library).collect())
}

/// One row for each kernel, one column for each of these suites.
fn table(suites: &[String], rows: &[(Kernel, Outcome)]) -> String {
    let row = |front: [&str; 2], middle: &[String], back: [&str; 2]| {
        let middle = middle.iter().map(String::as_str);
        let cells: Vec<&str> = front.into_iter().chain(middle).chain(back).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = vec!["---".to_owned(); suites.len()];
    let mut text = row(["Linux", "package"], suites, ["verified instructions", "seconds"]);
    text += &row(["---"; 2], &rule, ["---"; 2]);
    for (kernel, outcome) in rows {
        let cell = |at: usize| match outcome.suites.get(at) {
            Some(suite) if suite.failed + suite.skipped == 0 => format!("{} passed", suite.passed),
            Some(suite) => suite.closing_line(),
            None => "did not end".to_owned(),
        };
        let verified: Vec<&str> = outcome
            .verified
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(_, counts)| counts)
            .collect();
        let cells: Vec<String> = (0..suites.len()).map(cell).collect();
        let (verified, seconds) = (verified.join("; "), outcome.took.as_secs().to_string());
        text += &row([&kernel.series, &kernel.version], &cells, [&verified, &seconds]);
    }
    text
}
