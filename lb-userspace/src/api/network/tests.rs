//! Real TLS on the loopback: what is proved to whom, and what is said to those who prove nothing.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::time::{Duration, timeout};

use super::*;
use crate::api::double::Double;
use crate::client::{Client, ClientError, Remote, RemoteError, Trust};
use crate::view::AddBackend;

/// An authority and what it has signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = folder.join(format!("{name}-ca.pem"));
        fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// A certificate for the loopback, and its key.
    fn sign(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        fs::write(&files.0, certificate.pem()).unwrap();
        fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }
}

/// A daemon's double with a reader, a writer and an expired token, and authorities of readers and writers.
struct Site {
    folder: TempDir,
    daemon: Authority,
    writers: Authority,
    readers: Authority,
    double: Double,
    address: SocketAddr,
    credentials: Arc<Credentials>,
    /// The server stops when it goes.
    _stop: oneshot::Sender<()>,
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |before, byte| format!("{before}{byte:02x}"))
}

fn tokens(listed: &[(&str, &str, &str)]) -> String {
    let token = |(name, role, rest): &(&str, &str, &str)| {
        let digest = digits(&Sha256::digest(format!("secret-of-{name}")));
        format!("[[token]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{digest}\"\n{rest}\n")
    };
    listed.iter().map(token).collect()
}

const TOKENS: [(&str, &str, &str); 3] = [
    ("watch", "read", "expires = \"2999-12-31\""),
    ("deploy", "write", ""),
    ("old", "write", "expires = \"2026-01-31\""),
];

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = |name| Authority::new(folder.path(), name);
        let [daemon, writers, readers] = [authority("daemon"), authority("writers"), authority("readers")];
        let (certificate, key) = daemon.sign(folder.path(), "daemon");
        let file = folder.path().join("tokens.toml");
        fs::write(&file, tokens(&TOKENS)).unwrap();
        let network = Network::open(ApiSettings {
            listen: "127.0.0.1:0".parse().unwrap(),
            certificate,
            key,
            tokens: Some(file),
            writers: Some(writers.file.clone()),
            readers: Some(readers.file.clone()),
        });
        let network = network.await.unwrap();
        let address = network.listener.local_addr().unwrap();
        let credentials = Arc::clone(&network.credentials);
        let double = Double::default();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(network.serve(Arc::new(double.clone()), async { drop(stopped.await) }));
        Self { folder, daemon, writers, readers, double, address, credentials, _stop: stop }
    }

    fn trust(&self) -> Trust {
        Trust { authorities: Some(self.daemon.file.clone()), ..Trust::default() }
    }

    fn client(&self, trust: &Trust) -> Client {
        Client::remote(Remote::new(&format!("https://{}", self.address), trust).unwrap())
    }

    fn with_token(&self, token: &str) -> Client {
        let file = self.folder.path().join("token");
        fs::write(&file, token).unwrap();
        self.client(&Trust { token: Some(file), ..self.trust() })
    }

    fn with_certificate(&self, authority: &Authority) -> Client {
        let certificate = Some(authority.sign(self.folder.path(), "client"));
        self.client(&Trust { certificate, ..self.trust() })
    }
}

/// Reads, then tries to write: what each is answered with.
async fn tried(client: &Client) -> [String; 2] {
    let read = client.status().await.map(|status| status.version);
    let new = AddBackend { address: "10.0.0.1:80".to_owned(), weight: crate::model::Weight(1) };
    let written = client.add_backend("web", &new).await.map(|applied| applied.summary);
    let told = |error: ClientError| match error {
        ClientError::Problem(problem) => format!("{}: {}", problem.status, problem.detail),
        error => error.to_string(),
    };
    [read.map_or_else(told, |_| "read".to_owned()), written.map_or_else(told, |_| "written".to_owned())]
}

#[tokio::test]
async fn tokens_do_what_their_role_says_and_nothing_else() {
    let site = Site::new().await;
    assert_eq!(tried(&site.with_token("secret-of-deploy")).await, ["read", "written"]);
    let [read, refused] = tried(&site.with_token("secret-of-watch")).await;
    assert_eq!(read, "read");
    assert!(refused.starts_with("403: 127.0.0.1:"), "{refused}");
    assert!(refused.ends_with(" token watch may only read: its role is read"), "{refused}");
    let expired = "401: token old has expired: 2026-01-31 was its last day";
    assert_eq!(tried(&site.with_token("secret-of-old")).await, [expired; 2]);
    let unknown = "401: this token is not known here";
    assert_eq!(tried(&site.with_token("secret-of-nobody")).await, [unknown; 2]);
    let absent = "401: a token is needed, as `Authorization: Bearer TOKEN`";
    assert_eq!(tried(&site.client(&site.trust())).await, [absent; 2]);
    assert_eq!(site.double.changes.lock().unwrap().len(), 1, "only who may write has changed something");
}

#[tokio::test]
async fn certificates_are_worth_what_their_authority_says() {
    let site = Site::new().await;
    assert_eq!(tried(&site.with_certificate(&site.writers)).await, ["read", "written"]);
    let [read, refused] = tried(&site.with_certificate(&site.readers)).await;
    assert_eq!(read, "read");
    assert!(
        refused.starts_with("403: ") && refused.ends_with("its certificate is none of a writer"),
        "{refused}"
    );
    let stranger = Authority::new(site.folder.path(), "stranger");
    for told in tried(&site.with_certificate(&stranger)).await {
        assert!(told.starts_with("cannot reach the daemon at https://127.0.0.1:"), "{told}");
        assert!(told.contains("fatal alert") && told.contains("--certificate"), "{told}");
    }
    assert_eq!(site.double.changes.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_client_trusts_no_daemon_that_others_vouch_for() {
    let site = Site::new().await;
    let trust = Trust { authorities: Some(site.readers.file.clone()), ..Trust::default() };
    let error = site.client(&trust).status().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("invalid peer certificate") && error.contains("--ca"), "{error}");
}

/// What an unencrypted text is answered with, until the connection ends.
async fn answer_to(site: &Site, text: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    stream.write_all(text).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end, too.
    drop(timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap());
    answer
}

#[tokio::test]
async fn who_does_not_encrypt_learns_nothing() {
    let site = Site::new().await;
    for text in [&b"GET /v1/status HTTP/1.1\r\nHost: lb\r\n\r\n"[..], b"\0\xff\x16\x03", &vec![0x16; 70_000]]
    {
        let answer = answer_to(&site, text).await;
        assert!(answer.is_empty() || answer[0] == 21, "no alert of TLS: {answer:?}");
    }
    assert_eq!(tried(&site.with_token("secret-of-deploy")).await, ["read", "written"]);
}

#[tokio::test(start_paused = true)]
async fn credentials_follow_their_files() {
    let site = Site::new().await;
    let file = site.folder.path().join("tokens.toml");
    let known =
        |name: &str| site.credentials.token(format!("secret-of-{name}").as_bytes()).map(|token| token.name);
    let later = || tokio::time::advance(Duration::from_secs(2));
    assert_eq!(known("watch").as_deref(), Some("watch"));
    fs::write(&file, tokens(&TOKENS[1..])).unwrap();
    later().await;
    assert_eq!((known("watch"), known("deploy").as_deref()), (None, Some("deploy")), "one is taken away");
    fs::write(&file, "[[token]]\n").unwrap();
    later().await;
    assert_eq!(known("deploy").as_deref(), Some("deploy"), "what cannot be used changes nothing");
    let before = site.credentials.tls();
    site.daemon.sign(site.folder.path(), "daemon");
    fs::write(&file, tokens(&TOKENS)).unwrap();
    later().await;
    assert!(!Arc::ptr_eq(&before, &site.credentials.tls()), "the certificate is renewed");
    assert_eq!(known("watch").as_deref(), Some("watch"));
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_its_name_and_without_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "daemon");
    let (certificate, key) = authority.sign(folder.path(), "daemon");
    let (_, other) = authority.sign(folder.path(), "other");
    let settings = ApiSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        certificate,
        key: key.clone(),
        tokens: None,
        writers: Some(authority.file.clone()),
        readers: None,
    };
    let open = async |settings: ApiSettings| Network::open(settings).await.map(drop);
    assert!(open(settings.clone()).await.is_ok());
    let refused = async |settings: ApiSettings| open(settings).await.unwrap_err().to_string();
    let mismatch = refused(ApiSettings { key: other, ..settings.clone() }).await;
    assert!(mismatch.contains("daemon.crt cannot be used"), "{mismatch}");
    let swapped = refused(ApiSettings { key: authority.file.clone(), ..settings.clone() }).await;
    assert!(
        swapped.ends_with("daemon-ca.pem holds no private key in PEM; [daemon.api] names it"),
        "{swapped}"
    );
    let absent = refused(ApiSettings { readers: Some("/nonexistent/ca".into()), ..settings.clone() }).await;
    assert!(absent.starts_with("cannot read /nonexistent/ca: No such file"), "{absent}");
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let in_use = refused(ApiSettings { listen: taken.local_addr().unwrap(), ..settings }).await;
    assert!(in_use.contains("Address already in use") && in_use.contains("ss -ltnp"), "{in_use}");
    let half = Trust { certificate: Some((key.clone(), key)), ..Trust::default() };
    assert!(matches!(Remote::new("https://h", &half), Err(RemoteError::File(_))));
}
