//! The pipeline on real tables in memory and a real state directory, each of which can be made to fail.

use std::fs;
use std::path::Path;

use lb_common::hash::HashKey;

use super::super::core::Core;
use super::super::{Change, ListAction, ListChange};
use super::*;
use crate::config::{parse, render};
use crate::datapath::faulty::Faulty;
use crate::datapath::{Capacity, MemoryDatapath};
use crate::model::{AdminState, Backend, ListName, Weight};
use crate::state::{Directory, StateError, begin};

/// A state directory that refuses one operation and takes all others.
struct FaultyStore {
    inner: Directory,
    /// Operations until the one that is refused, that one included; 0 if none is to be.
    left: Arc<Mutex<usize>>,
}

impl FaultyStore {
    fn count(&self) -> Result<(), StateError> {
        let mut left = self.left.lock().unwrap();
        let refused = *left == 1;
        *left = left.saturating_sub(1);
        if refused { Err(StateError::Missing { number: 0 }) } else { Ok(()) }
    }
}

impl Store for FaultyStore {
    fn write(&mut self, generation: &Generation, desired: &Desired) -> Result<(), StateError> {
        self.count()?;
        self.inner.write(generation, desired)
    }

    fn remove(&mut self, number: u64) -> Result<(), StateError> {
        self.inner.remove(number)
    }

    fn read(&self, number: u64) -> Result<Desired, StateError> {
        self.inner.read(number)
    }

    fn history(&self) -> Vec<Generation> {
        self.inner.history()
    }
}

/// The controller's tables, without its tasks.
#[derive(Clone)]
struct Tables(Arc<Mutex<Core<Faulty>>>);

impl Tables {
    fn new() -> Self {
        let capacity = Capacity {
            services: 4,
            service_entries: 64,
            slots: 4096,
            backends: 64,
            limiters: 32,
            bucket_sets: 64,
            lists: 16,
            flow_sets: 16,
            fragment_sets: 16,
        };
        let tables = MemoryDatapath::new(HashKey::ZERO, capacity, &[]);
        Self(Arc::new(Mutex::new(Core::new(Faulty::new(tables, 0)))))
    }

    fn words(&self) -> Vec<u64> {
        self.0.lock().unwrap().datapath().tables().words()
    }

    fn refuse(&self, nth: usize) {
        self.0.lock().unwrap().datapath().refuse(nth);
    }

    fn is_unspent(&self) -> bool {
        self.0.lock().unwrap().datapath().is_unspent()
    }
}

impl Balancer for Tables {
    async fn commit(&mut self, edited: Edited, generation: u64) -> Result<Applied, ChangeError> {
        self.0.lock().unwrap().commit(edited, generation)
    }

    async fn plan(&mut self, desired: Desired) -> Result<PlanView, ChangeError> {
        let plan = self.0.lock().unwrap().plan(&desired);
        plan.map_err(|error| ChangeError::Refused(error.to_string()))
    }

    async fn addresses(&mut self) -> Result<Vec<(IpAddr, String)>, ChangeError> {
        Ok(vec![
            ("127.0.0.1".parse().unwrap(), "lo".to_owned()),
            ("198.51.100.1".parse().unwrap(), "eth0".to_owned()),
        ])
    }
}

/// A daemon of nothing but a pipeline: its files, its state directory and its tables.
struct World {
    folder: tempfile::TempDir,
    tables: Tables,
    refused: Arc<Mutex<usize>>,
    pipeline: Pipeline<Tables, FaultyStore>,
    status: watch::Receiver<ConfigStatus>,
}

fn service(backends: &[&str]) -> String {
    let backends: Vec<String> =
        backends.iter().map(|last| format!("{{ address = \"10.0.1.{last}:80\" }}")).collect();
    format!(
        "[[service]]\nname = \"web\"\nvip = \"192.0.2.10:80\"\nprotocol = \"tcp\"\nmode = \"dsr-l2\"\ntable_size = 251\n\
         backends = [{}]\n",
        backends.join(", ")
    )
}

fn main_file(rest: &str) -> String {
    format!("[daemon]\ninterfaces = [\"eth0\"]\n{rest}")
}

impl World {
    /// With a service of two backends in its file.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("lb.toml"), main_file(&service(&["1", "2"]))).unwrap();
        Self::start(folder)
    }

    fn write_file(&self, text: &str) {
        fs::write(self.folder.path().join("lb.toml"), text).unwrap();
    }

    /// As a daemon starts.
    fn start(folder: tempfile::TempDir) -> Self {
        let path = folder.path().join("lb.toml");
        let config = load(&path).unwrap();
        let desired = config.desired();
        let (directory, found) = Directory::open(&folder.path().join("state")).unwrap();
        let beginning = begin(&found, &desired, &path, Some(&directory), unix_now());
        let tables = Tables::new();
        tables.0.lock().unwrap().begin(beginning.desired.clone(), beginning.generation.number).unwrap();
        let refused = Arc::default();
        let mut store = FaultyStore { inner: directory, left: Arc::clone(&refused) };
        if beginning.is_new {
            store.write(&beginning.generation, &beginning.desired).unwrap();
        }
        let last = found.last.max(beginning.generation.number);
        let files = Files { path, settings: config.daemon };
        let (pipeline, status) = Pipeline::new(
            tables.clone(),
            Journal::default(),
            Ok(store),
            files,
            beginning,
            last,
            found.damaged,
        );
        Self { folder, tables, refused, pipeline, status }
    }

    /// As after `kill -9` and a new start.
    fn restart(self) -> Self {
        let Self { folder, pipeline, .. } = self;
        drop(pipeline);
        Self::start(folder)
    }

    fn kept(&self) -> Vec<u64> {
        let store = self.pipeline.store.as_ref().unwrap().lock().unwrap();
        store.history().iter().map(|generation| generation.number).collect()
    }

    async fn change(&mut self, change: Change) -> Result<Applied, ChangeError> {
        let edited =
            self.pipeline.ensure_confirmed().and_then(|()| Edited::by(&self.pipeline.desired, change));
        self.pipeline.take_edit(edited).await
    }

    async fn apply(&mut self, text: &str, confirm_within: Option<u64>) -> Result<ConfigApplied, ChangeError> {
        self.pipeline.apply_text(text.to_owned(), confirm_within.map(Duration::from_secs)).await
    }

    /// The last bytes of the backends' addresses.
    fn backends(&self) -> Vec<String> {
        let services = &self.pipeline.desired.services;
        let last = |backend: &Backend| backend.endpoint.address.to_string().replace("10.0.1.", "");
        services.get("web").map(|web| web.backends.iter().map(last).collect()).unwrap_or_default()
    }

    /// The tables hold what is wanted: as those of a controller that knows nothing else.
    fn ensure_in_force(&self) {
        let fresh = Tables::new();
        fresh.0.lock().unwrap().begin(self.pipeline.desired.clone(), 1).unwrap();
        let core = self.tables.0.lock().unwrap();
        assert_eq!(core.plan(&self.pipeline.desired).unwrap(), PlanView::default());
        drop(core);
        let kept =
            self.pipeline.store.as_ref().unwrap().lock().unwrap().read(self.pipeline.generation.number);
        assert_eq!(kept.unwrap(), self.pipeline.desired, "the state directory has something else");
    }
}

fn add(last: &str) -> Change {
    let endpoint = format!("10.0.1.{last}:80").parse().unwrap();
    let backend = Backend { endpoint, weight: Weight(100), admin: AdminState::Ready };
    Change::AddBackend { service: "web".to_owned(), backend }
}

fn sentence<T: std::fmt::Debug>(result: Result<T, ChangeError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn changes_by_command_survive_a_restart() {
    let mut world = World::new();
    let applied = world.change(add("3")).await.unwrap();
    assert_eq!((applied.generation, applied.slots_total), (2, 251));
    assert_eq!(world.kept(), [1, 2]);
    let mut world = world.restart();
    assert_eq!((world.backends().join(" ").as_str(), world.pipeline.generation.number), ("1 2 3", 2));
    world.change(add("4")).await.unwrap();
    world.ensure_in_force();
    assert_eq!(world.restart().backends(), ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn files_that_changed_meanwhile_are_in_force_after_a_restart() {
    let mut world = World::new();
    world.change(add("3")).await.unwrap();
    world.write_file(&main_file(&format!("# Only a comment.\n{}", service(&["1", "2"]))));
    let world = world.restart();
    assert_eq!(world.backends(), ["1", "2", "3"], "a comment changes nothing");
    world.write_file(&main_file(&service(&["2"])));
    let world = world.restart();
    assert_eq!((world.backends().join(" ").as_str(), world.pipeline.generation.number), ("2", 3));
}

/// Whatever refuses, the state directory or some store of the tables: nothing has changed, and the next attempt works.
#[tokio::test]
async fn whatever_refuses_a_change_nothing_has_changed() {
    let mut refusals = 0;
    for nth in 0.. {
        let mut world = World::new();
        let before = (world.tables.words(), world.pipeline.desired.clone(), world.kept());
        if nth == 0 {
            *world.refused.lock().unwrap() = 1;
        } else {
            world.tables.refuse(nth);
        }
        let text = format!("[lists]\ndeny = [\"10.0.0.0/8\"]\n{}", service(&["2", "3"]));
        let result = world.apply(&text, None).await;
        if let Err(error) = result {
            refusals += 1;
            let after = (world.tables.words(), world.pipeline.desired.clone(), world.kept());
            assert!(after == before, "at {nth}");
            assert!(matches!(error, ChangeError::Refused(_)));
            if nth == 0 {
                let expected = "nothing was changed, since it could not be kept over a restart: generation 0 is not \
                                kept; see `lb config history`";
                assert_eq!(error.to_string(), expected);
            }
            world.apply(&text, None).await.unwrap();
        }
        world.ensure_in_force();
        let unspent = world.tables.is_unspent();
        assert_eq!(world.restart().backends(), ["2", "3"]);
        if unspent {
            break;
        }
    }
    assert!(refusals > 3, "only {refusals}");
}

#[tokio::test]
async fn without_a_state_directory_nothing_can_be_changed() {
    let mut world = World::new();
    world.pipeline.store = Err("it is on fire".to_owned());
    let expected = "nothing was changed, since it could not be kept over a restart: it is on fire";
    assert_eq!(sentence(world.change(add("3")).await), expected);
    assert!(world.pipeline.history().await.is_empty());
    assert_eq!(sentence(world.pipeline.roll_back(None).await), "there is no state directory");
}

#[tokio::test]
async fn a_reload_makes_what_is_wanted_equal_to_the_files() {
    let mut world = World::new();
    world.change(add("3")).await.unwrap();
    assert_eq!(
        world.pipeline.difference(None).await.unwrap().changes,
        ["- service web: backend 10.0.1.3:80"]
    );
    let applied = world.pipeline.reload(None).await.unwrap();
    assert_eq!(applied.changes, ["- service web: backend 10.0.1.3:80"]);
    assert!(world.pipeline.difference(None).await.unwrap().is_empty());
    let again = world.pipeline.reload(None).await.unwrap();
    assert_eq!(
        (again.applied.generation, again.changes.len()),
        (3, 0),
        "nothing changed, so nothing is numbered"
    );
    world.write_file(&main_file("nonsense"));
    let place = format!("{}/", world.folder.path().display());
    let error = sentence(world.pipeline.reload(None).await).replace(&place, "");
    assert_eq!(error, "lb.toml:3: key with no value, expected `=`");
    assert_eq!(world.backends(), ["1", "2"]);
    let status = world.status.borrow().clone();
    assert!(
        status.reload_error.is_some()
            && status.warnings().next().unwrap().starts_with("the last reload changed")
    );
    world.write_file(&main_file(&service(&["1"])));
    world.pipeline.reload(None).await.unwrap();
    assert_eq!(
        (world.backends().join(" ").as_str(), world.status.borrow().reload_error.clone()),
        ("1", None)
    );
    world.ensure_in_force();
}

#[tokio::test]
async fn settings_of_the_daemon_take_a_restart() {
    let mut world = World::new();
    world.write_file(&format!("[daemon]\ninterfaces = [\"eth1\"]\nflows = 8\n{}", service(&["1"])));
    let expected = "[daemon] interfaces, flows cannot change while the daemon runs; restart it, or leave them as they are";
    assert_eq!(sentence(world.pipeline.reload(None).await), expected);
    assert_eq!(
        sentence(world.apply("[daemon]\ninterfaces = [\"eth0\"]\nflows = 8\n", None).await),
        expected.replace("interfaces, ", "")
    );
    assert_eq!(world.pipeline.difference(None).await.unwrap().restart, ["interfaces", "flows"]);
    assert_eq!(world.backends(), ["1", "2"]);
}

#[tokio::test]
async fn a_text_is_shown_as_it_is_applied() {
    let mut world = World::new();
    let shown = world.pipeline.text();
    let parsed = parse(&shown, "shown".as_ref()).unwrap();
    assert_eq!(
        (parsed.desired(), &parsed.daemon),
        (world.pipeline.desired.clone(), &world.pipeline.files.settings)
    );
    assert!(world.pipeline.difference(Some(shown.clone())).await.unwrap().is_empty());
    let same = world.apply(&shown, Some(60)).await.unwrap();
    assert_eq!((same.applied.generation, same.confirm_by), (1, None));
    let text = service(&["2", "3"]);
    let diff = world.pipeline.difference(Some(text.clone())).await.unwrap();
    let expected = ["- service web: backend 10.0.1.1:80", "+ service web: backend 10.0.1.3:80 weight 100"];
    assert_eq!(
        (&diff.changes[..], diff.count, world.backends().join(" ").as_str()),
        (&expected.map(str::to_owned)[..], 2, "1 2")
    );
    let applied = world.apply(&text, None).await.unwrap();
    assert_eq!((applied.changes, applied.applied.summary.as_str()), (diff.changes, "command: 2 changes"));
    assert_eq!(world.restart().backends(), ["2", "3"]);
}

#[tokio::test]
async fn what_the_rules_refuse_changes_nothing() {
    let mut world = World::new();
    let web = service(&["1"]);
    let cases = [
        ("nonsense".to_owned(), "configuration:1: key with no value, expected `=`"),
        (
            web.replace("251", "250"),
            "configuration:6: service web: table_size: 250 is not a prime; the next one is 251",
        ),
        (
            web.replace("10.0.1.1", "192.0.2.10"),
            "configuration:7: service web: backends[0].address: 192.0.2.10 is the VIP itself; a backend needs an address of \
             its own",
        ),
        (
            service(&["1", "1"]),
            "configuration:7: service web: backends[1].address: 10.0.1.1:80 is already a backend of the service, on line 7",
        ),
        (
            format!("{web}{}", web.replace("\"web\"", "\"other\"")),
            "configuration:10: service other: vip: 192.0.2.10:80 tcp belongs to service web on line 3",
        ),
        (
            web.replace("192.0.2.10", "198.51.100.1"),
            "service web: VIP 198.51.100.1 is an address of this host, on eth0: probes and the host's own traffic to it would \
             reach the host itself; a VIP belongs on the backends only, so remove it here (ip address del 198.51.100.1 dev \
             eth0) or choose another VIP",
        ),
        (
            service(
                &(1..=80)
                    .map(|last| last.to_string())
                    .collect::<Vec<_>>()
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>(),
            ),
            "service web: the table of backends is full (64 in all); remove something first",
        ),
    ];
    let before = (world.tables.words(), world.kept());
    for (text, expected) in cases {
        assert_eq!(sentence(world.apply(&text, None).await), expected);
        assert_eq!(sentence(world.pipeline.difference(Some(text)).await), expected);
        assert!((world.tables.words(), world.kept()) == before);
        assert_eq!(world.backends(), ["1", "2"]);
    }
}

#[tokio::test]
async fn rollback_goes_back_and_forth() {
    let mut world = World::new();
    world.change(add("3")).await.unwrap();
    world.change(add("4")).await.unwrap();
    let back = world.pipeline.roll_back(None).await.unwrap();
    assert_eq!(
        (back.applied.generation, back.changes),
        (4, vec!["- service web: backend 10.0.1.4:80".to_owned()])
    );
    world.pipeline.roll_back(Some(1)).await.unwrap();
    assert_eq!(world.backends(), ["1", "2"]);
    world.ensure_in_force();
    assert_eq!(
        sentence(world.pipeline.roll_back(Some(77)).await),
        "generation 77 is not kept; see `lb config history`"
    );
    let history = world.pipeline.history().await;
    let told: Vec<_> =
        history.iter().map(|view| (view.generation, view.origin.as_str(), view.current)).collect();
    assert_eq!(
        told[1..],
        [
            (2, "command", false),
            (3, "command", false),
            (4, "rollback to 2", false),
            (5, "rollback to 1", true)
        ]
    );
    let world = world.restart();
    assert_eq!((world.backends().join(" ").as_str(), world.pipeline.generation.number), ("1 2", 5));
}

/// A pipeline at work, and the world that it left when everybody is gone.
async fn at_work<T>(world: World, ask: impl AsyncFnOnce(&mpsc::Sender<Wish>) -> T) -> T {
    struct Never;
    impl Hangups for Never {
        async fn recv(&mut self) {
            std::future::pending::<()>().await;
        }
    }
    let World { folder: _folder, pipeline, .. } = world;
    let (wishes, asked) = mpsc::channel(1);
    let running = tokio::spawn(pipeline.run(asked, Never));
    let result = ask(&wishes).await;
    drop(wishes);
    running.await.unwrap();
    result
}

#[tokio::test]
async fn an_unconfirmed_generation_keeps_others_out_until_it_is_confirmed() {
    let mut world = World::new();
    let applied = world.apply(&service(&["3"]), Some(60)).await.unwrap();
    assert!(applied.confirm_by.is_some_and(|until| until >= unix_now() + 59));
    for error in [
        sentence(world.change(add("4")).await),
        sentence(world.apply(&service(&["5"]), None).await),
        sentence(world.pipeline.reload(None).await),
    ] {
        assert!(error.starts_with("generation 2 waits for another "), "{error}");
        assert!(
            error.ends_with("keep it with `lb config confirm` or undo it with `lb config rollback` first"),
            "{error}"
        );
    }
    let mut world = world.restart();
    assert!(world.pipeline.deadline.is_some() && world.backends() == ["3"], "it waits over a restart");
    world.pipeline.confirm().await.unwrap();
    assert_eq!(world.status.borrow().confirm_by, None);
    assert_eq!(sentence(world.pipeline.confirm().await), "generation 2 does not wait to be confirmed");
    let mut world = world.restart();
    assert!(world.pipeline.deadline.is_none());
    world.apply(&service(&["6"]), Some(60)).await.unwrap();
    world.pipeline.roll_back(None).await.unwrap();
    assert_eq!((world.backends().join(" ").as_str(), world.pipeline.deadline), ("3", None));
}

#[tokio::test]
async fn what_nobody_confirms_goes_away_even_if_that_cannot_be_kept() {
    for refused in [0, 1] {
        let mut world = World::new();
        world.apply(&service(&["3"]), Some(1)).await.unwrap();
        *world.refused.lock().unwrap() = refused;
        let (tables, mut status) = (world.tables.clone(), world.status.clone());
        at_work(world, async |_| {
            let undone = status.wait_for(|status| status.origin == "not confirmed, back to 1");
            tokio::time::timeout(Duration::from_secs(10), undone).await.unwrap().unwrap();
        })
        .await;
        let backends = tables.0.lock().unwrap().backends("web").unwrap();
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address.as_str()).collect();
        assert_eq!(addresses, ["10.0.1.1:80", "10.0.1.2:80"], "{refused}");
    }
}

#[tokio::test]
async fn applying_what_the_files_say_is_as_good_as_a_reload() {
    let mut world = World::new();
    world.write_file(&main_file(&service(&["7"])));
    world.apply(&service(&["7"]), None).await.unwrap();
    world.pipeline.roll_back(None).await.unwrap();
    let world = world.restart();
    assert_eq!(world.backends(), ["1", "2"], "the files were seen, and undone on purpose");
}

#[tokio::test]
async fn lists_by_command_are_kept_too() {
    let mut world = World::new();
    let prefixes = vec!["10.0.0.0/8".parse().unwrap()];
    let change = ListChange { list: ListName::Deny, action: ListAction::Add, prefixes };
    for generation in [2, 2] {
        let edited = Edited::by_list(&world.pipeline.desired, &change);
        assert_eq!(world.pipeline.take_edit(edited).await.unwrap().generation, generation);
    }
    let world = world.restart();
    assert!(render(&world.pipeline.desired).contains("deny = [\n    \"10.0.0.0/8\",\n]"));
    assert!(Path::new(&world.folder.path().join("state/generation-2.toml")).exists());
}
