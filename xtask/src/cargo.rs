//! Running cargo on this workspace.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result, ensure};
use lb_ebpf_build::Recipe;

/// The workspace's directory.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where cargo puts this workspace's binaries: two levels above the running one, whatever the configuration says.
fn target_dir() -> Result<PathBuf> {
    let xtask = env::current_exe().context("cannot find the running xtask")?;
    let target = xtask.ancestors().nth(2).context("xtask does not run from a target directory")?;
    Ok(target.to_owned())
}

/// A built binary, of the profile whose directory is `profile`.
pub(crate) fn binary(profile: &str, name: &str) -> Result<PathBuf> {
    Ok(target_dir()?.join(profile).join(name))
}

/// All packages for the host. Whatever is tested is built with these words: cargo builds a crate again for each other selection that
/// asks for other features of it, and `lb-userspace` alone takes minutes.
pub(crate) const HOST: &str = "--workspace --exclude lb-ebpf";

/// The words of a line.
pub(crate) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Cargo in the workspace, sharing the target directory of the cargo that runs this.
pub(crate) fn command<S: AsRef<str>>(args: &[S]) -> Result<Command> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    let target = target_dir()?;
    if env::var_os(INCREMENTAL).is_none() && !is_worked_on(&target) {
        cargo.env(INCREMENTAL, "0");
    }
    cargo.args(args.iter().map(AsRef::as_ref)).current_dir(root()).env("CARGO_TARGET_DIR", target);
    Ok(cargo)
}

/// Does `work`, which builds the load balancer, while the eBPF programs that it embeds are compiled beside it: the build script that
/// embeds them begins late, and everything would wait for it. What goes wrong here goes wrong there too, and is told there.
pub(crate) fn beside_programs<T>(work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        scope.spawn(|| Recipe::find(root()).map(|recipe| recipe.build(root(), &[]).is_ok()));
        work()
    })
}

/// Makes cargo keep, or not, what spares the next build of a crate: it takes a third of the time of the first one.
const INCREMENTAL: &str = "CARGO_INCREMENTAL";

/// Whether cargo has built the load balancer here by itself, as for those who change it. Others try it, or test it in a fresh clone:
/// they build it once. Changing from one to the other builds it again, so nothing that xtask runs may decide differently.
fn is_worked_on(target: &Path) -> bool {
    let mut entries = fs::read_dir(target.join("debug/incremental")).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_string_lossy().starts_with("lb_userspace-"))
}

/// Runs cargo and fails if it does.
pub(crate) fn run<S: AsRef<str>>(args: &[S]) -> Result<()> {
    let status = command(args)?.status().context("cannot start cargo")?;
    ensure!(status.success(), "cargo {} failed", args.first().map_or("", AsRef::as_ref));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_worked_on_once_cargo_has_built_the_load_balancer_there() {
        let target = env::temp_dir().join(format!("xtask-incremental-{}", std::process::id()));
        let built = |name: &str| fs::create_dir_all(target.join("debug/incremental").join(name)).unwrap();
        assert!(!is_worked_on(&target));
        built("xtask-0d1f4a");
        assert!(!is_worked_on(&target), "xtask itself is always built by cargo alone");
        built("lb_userspace-0d1f4a");
        assert!(is_worked_on(&target));
        fs::remove_dir_all(&target).unwrap();
    }
}
