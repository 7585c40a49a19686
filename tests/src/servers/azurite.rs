//! Azurite, an Azure Blob server.

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::daemon::{Daemon, free_ports, program};
use super::http::{self, escaped};
use super::{SharedServer, Site};

const ACCOUNT: &str = "sluicetests";
const CONTAINER: &str = "sluice-test";
const PUBLIC: &str = "sluice-public";
const KEY: &[u8] = b"azure account key, never to be shown, 64 bytes of it: 7Q2.4f1c..";

/// Azurite with one account and two containers.
pub struct Azurite {
    /// The container, accessed with the account's key.
    pub site: Site,
    /// The URI of another container, with public read access.
    pub public: String,
    /// A SAS token for everything in the account.
    pub token: String,
    _daemon: Daemon,
}

impl Azurite {
    /// Returns the server that the tests share.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: SharedServer<Azurite> = SharedServer::new();
        SHARED.get(Self::start)
    }

    /// Starts a server.
    ///
    /// # Panics
    /// When it cannot create a container.
    pub fn start() -> Option<Self> {
        let program = program("azurite-blob")?;
        let [port] = free_ports();
        let key = BASE64_STANDARD.encode(KEY);
        let accounts = format!("{ACCOUNT}:{key}");
        let arguments = |folder: &std::path::Path| {
            let words = [
                "--blobHost=127.0.0.1",
                &format!("--blobPort={port}"),
                &format!("--location={}", folder.display()),
                "--silent",
                "--disableTelemetry",
                // It supports the service's versions up to its own release.
                "--skipApiVersionCheck",
            ];
            words.map(str::to_owned).to_vec()
        };
        let daemon = Daemon::start(&program, arguments, &[("AZURITE_ACCOUNTS", &accounts)]);
        daemon.wait_until(|| http::request(port, "GET", "/", &[], "").is_ok());
        let (token, signature) = token();
        let public = ["x-ms-blob-public-access: container"];
        for (container, headers) in [(CONTAINER, &[][..]), (PUBLIC, &public)] {
            let target = format!("/{ACCOUNT}/{container}?restype=container&{token}");
            let made = http::request(port, "PUT", &target, headers, "").expect("Azurite answers");
            assert_eq!(made.status, 201, "{}", made.body);
        }
        Some(Self {
            site: Site {
                bucket: format!("az://{CONTAINER}"),
                missing: "az://sluice-missing".to_owned(),
                port,
                variables: vec![
                    (
                        "AZURE_STORAGE_ENDPOINT",
                        format!("http://127.0.0.1:{port}/{ACCOUNT}"),
                    ),
                    ("AZURE_STORAGE_ACCOUNT", ACCOUNT.to_owned()),
                    ("AZURE_STORAGE_KEY", key.clone()),
                ],
                secrets: vec![key, in_query(&signature), signature],
            },
            public: format!("az://{PUBLIC}"),
            token,
            _daemon: daemon,
        })
    }
}

/// Returns Base64 escaped for a query.
fn in_query(text: &str) -> String {
    escaped(text).replace('/', "%2F")
}

/// Returns a SAS token, and its signature before escaping.
///
/// [Format](https://learn.microsoft.com/rest/api/storageservices/create-account-sas) of version
/// 2020-10-02.
fn token() -> (String, String) {
    let (permissions, services, kinds) = ("rwdlac", "b", "sco");
    let (expiry, version) = ("2099-01-01T00:00:00Z", "2020-10-02");
    let fields = [
        ACCOUNT,
        permissions,
        services,
        kinds,
        "",
        expiry,
        "",
        "",
        version,
        "",
    ];
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).expect("any key will do");
    mac.update(fields.join("\n").as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    let token = format!(
        "sv={version}&ss={services}&srt={kinds}&sp={permissions}&se={}&sig={}",
        escaped(expiry),
        in_query(&signature)
    );
    (token, signature)
}
