//! Debian's kernels, unpacked and not installed.

use std::{
    fmt::Write as _,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::debian;

/// Where Debian keeps kernels of several versions, and what keys it signs with. No file of the host's apt is changed or read.
const SOURCES: &str = "\
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-backports main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie-backports main
";

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// What was asked for, `6.12`.
    pub(crate) series: String,
    /// The package's version.
    pub(crate) version: String,
    /// What QEMU starts.
    pub(crate) image: PathBuf,
    /// `lib/modules/VERSION` of it.
    pub(crate) modules: PathBuf,
}

/// The kernel of a series, if it has been fetched.
pub(crate) fn find(folder: &Path, series: &str) -> Result<Option<Kernel>> {
    let root = folder.join(series);
    let Ok(version) = fs::read_to_string(root.join("version")) else { return Ok(None) };
    let modules = [root.join("usr/lib/modules"), root.join("lib/modules")];
    let modules = modules.iter().find_map(|modules| Some(fs::read_dir(modules).ok()?.next()?.ok()?.path()));
    let modules = modules.with_context(|| format!("{} has no modules", root.display()))?;
    let in_boot = fs::read_dir(root.join("boot")).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_image = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")) && path.is_file()
    };
    let image = in_boot.chain([modules.join("vmlinuz")]).find(is_image);
    let image = image.with_context(|| format!("{} has no vmlinuz", root.display()))?;
    Ok(Some(Kernel { series: series.to_owned(), version: version.trim().to_owned(), image, modules }))
}

/// Fetches the newest kernels of these series, each with its checksum in `packages` beside it.
pub(crate) fn fetch(folder: &Path, series: &[String]) -> Result<()> {
    let apt = Apt::new(folder)?;
    println!("Reading the lists of packages, into {}", folder.display());
    apt.run("apt-get", &["update", "--quiet=2"])?;
    series.iter().try_for_each(|series| fetch_one(&apt, folder, series))
}

/// Installs QEMU from where it goes with the part of it that is installed already: usually the host's own sources, on Debian 12 with
/// `qemu-utils` of the backports only from there. Removes nothing.
pub(super) fn install_qemu(folder: &Path) -> Result<()> {
    let Err(error) = debian::install(&["qemu-system-x86".to_owned()]) else { return Ok(()) };
    let install = ["install", "--yes", "--no-install-recommends", "--no-remove", "--quiet=2"];
    let apt = Apt::new(folder)?;
    apt.run("apt-get", &["update", "--quiet=2"])?;
    let mut backports = apt.command("apt-get", &install);
    backports.args([
        "--target-release",
        "bookworm-backports",
        "qemu-system-x86",
        "qemu-system-common",
        "qemu-system-data",
        "seabios",
    ]);
    finished(backports.env("DEBIAN_FRONTEND", "noninteractive")).map(drop).context(error)
}

fn fetch_one(apt: &Apt, folder: &Path, series: &str) -> Result<()> {
    let pattern = format!("^linux-image-{}[.-].*-cloud-amd64$", series.replace('.', "\\."));
    let found = apt.ask("apt-cache", &["search", "--names-only", &pattern])?;
    let names = found.lines().filter_map(|line| line.split(' ').next());
    let newest = names.filter(|name| !name.contains("unsigned")).max_by_key(|name| numbers(name));
    let newest = newest.with_context(|| {
        format!(
            "Debian has no kernel {series} for the cloud, or none any more; without --kernel those of {} are fetched",
            super::SERIES.join(", ")
        )
    })?;
    let release = newest.trim_start_matches("linux-image-");
    println!("Fetching Linux {release}");
    // Beside the one that is there, which stays if this fails.
    let (place, root) = (folder.join(series), folder.join(format!("{series}.new")));
    remove(&root)?;
    let packages = root.join("packages");
    fs::create_dir_all(&packages).with_context(|| format!("cannot make {}", packages.display()))?;
    // From 6.19 on, the image is a package without content beside these two.
    let mut all = vec![newest.to_owned()];
    for part in ["linux-binary", "linux-modules"] {
        let name = format!("{part}-{release}");
        if apt
            .ask("apt-cache", &["search", "--names-only", &format!("^{}$", name.replace('+', "\\+"))])?
            .contains(&name)
        {
            all.push(name);
        }
    }
    for name in &all {
        let mut download = apt.command("apt-get", &["download", "--quiet=2", name]);
        finished(download.current_dir(&packages))?;
    }
    let mut about = String::new();
    let mut debs: Vec<PathBuf> =
        fs::read_dir(&packages)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    debs.sort();
    for deb in &debs {
        finished(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(&root))?;
        let sum = finished(Command::new("sha256sum").arg(deb))?;
        let sum = String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap_or_default().to_owned();
        let name = deb.file_name().unwrap_or_default().to_string_lossy();
        writeln!(about, "{sum}  {name}")?;
        println!("  {name} sha256 {sum}");
    }
    fs::write(root.join("packages.sha256"), about)?;
    fs::remove_dir_all(&packages)?;
    let version = apt.ask("apt-cache", &["show", "--no-all-versions", newest])?;
    let version = version.lines().find_map(|line| line.strip_prefix("Version: "));
    fs::write(root.join("version"), version.with_context(|| format!("{newest} has no version"))?)?;
    remove(&place)?;
    fs::rename(&root, &place)
        .with_context(|| format!("cannot move {} to {}", root.display(), place.display()))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("cannot remove {}", folder.display())),
    }
}

/// A series of kernels as the command line names it: it becomes a part of paths and of names of packages.
pub(crate) fn series(text: &str) -> Result<String> {
    let whole = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (major, minor) = text.split_once('.').unwrap_or_default();
    ensure!(whole(major) && whole(minor), "a series of kernels is two numbers, such as 6.12");
    Ok(text.to_owned())
}

/// The numbers in a name: of names alike but for them, the newest has the greatest.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// apt with lists and settings of its own.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(folder: &Path) -> Result<Self> {
        let apt = folder.join("apt");
        for part in ["lists/partial", "cache/archives/partial"] {
            let path = apt.join(part);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let sources = apt.join("sources.list");
        fs::write(&sources, SOURCES).with_context(|| format!("cannot write {}", sources.display()))?;
        let settings = [
            format!("Dir::State::lists={}", apt.join("lists").display()),
            format!("Dir::Cache={}", apt.join("cache").display()),
            format!("Dir::Etc::SourceList={}", sources.display()),
            "Dir::Etc::SourceParts=-".to_owned(),
            // The folder belongs to who runs this, whom apt's own user is not.
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Self { options: settings.into_iter().flat_map(|setting| ["-o".to_owned(), setting]).collect() })
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        finished(&mut self.command(program, arguments)).map(drop)
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = finished(&mut self.command(program, arguments))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Waits for a program, which has to succeed.
pub(super) fn finished(command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}

/// A module as the kernel loads it, in the order in which they need each other; what is built in is left out.
pub(crate) fn modules(kernel: &Kernel, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let files = files_below(&kernel.modules)?;
    let mut loaded = Vec::new();
    for name in wanted {
        load(name, &files, &mut loaded)?;
    }
    Ok(loaded)
}

fn load(name: &str, files: &[PathBuf], loaded: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let name = name.replace('-', "_");
    if loaded.iter().any(|(known, _)| *known == name) {
        return Ok(());
    }
    let is_it = |path: &&PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().replace('-', "_");
        file == format!("{name}.ko") || file == format!("{name}.ko.xz")
    };
    let Some(path) = files.iter().find(is_it) else { return Ok(()) };
    let bytes = if path.extension().is_some_and(|extension| extension == "xz") {
        finished(Command::new("xz").args(["--decompress", "--stdout"]).arg(path))?.stdout
    } else {
        fs::read(path).with_context(|| format!("cannot read {}", path.display()))?
    };
    for needed in needs(&bytes) {
        load(&needed, files, loaded)?;
    }
    loaded.push((name, bytes));
    Ok(())
}

/// The modules that a module says it depends on (`.modinfo`, kernel/module/main.c).
fn needs(module: &[u8]) -> Vec<String> {
    let says = b"\0depends=";
    let Some(at) = module.windows(says.len()).position(|window| window == says) else { return Vec::new() };
    let list = module[at + says.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    ensure!(files.len() < 100_000, "{} has too many files", folder.display());
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_names_the_newest_is_found() {
        let names = ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"];
        assert_eq!(names.into_iter().max_by_key(|name| numbers(name)), Some(names[1]));
    }

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(needs(b"license=GPL\0depends=a,b_c\0retpoline=Y\0"), ["a", "b_c"]);
        assert_eq!(needs(b"license=GPL\0depends=\0x=y"), Vec::<String>::new());
    }
}
