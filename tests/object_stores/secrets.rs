//! Secrets appear nowhere: not in trace logs, not in written objects, and not in error messages.
//!
//! [`RemoteFolder`] searches the output of every program in these tests. This module tests the other
//! kinds of credentials, and failures.

use sluice_tests::servers::{Azurite, SeaweedFs, Site};

use crate::reference::{Reference, contents};
use crate::remote::{RemoteFolder, result, said};

const PROGRAMS: [&str; 9] = [
    "sluice",
    "sluice-partition",
    "sluice-read",
    "sluice-embed",
    "sluice-aesthetic",
    "sluice-nsfw",
    "sluice-dedup",
    "sluice-export",
    "sluice-report",
];

/// Variables with URIs.
const VARIABLES: [&str; 8] = [
    "SLUICE_RUN",
    "SLUICE_INPUT",
    "SLUICE_OUTPUT",
    "SLUICE_MODELS",
    "SLUICE_EMBEDDER",
    "SLUICE_AESTHETIC_MODEL",
    "SLUICE_NSFW_MODEL",
    "SLUICE_RESULT",
];

/// Partitions and reads `photos`, which proves that the credentials are valid.
fn read(remote: &RemoteFolder, run: &str) {
    let (input, place) = (remote.at("photos"), remote.at(run));
    remote.done(&["sluice-partition", "--input", &input, "--run", &place]);
    remote.done(&["sluice-read", "--run", &place]);
    assert!(contents(&remote.fetch(run)).len() > 5);
}

#[test]
fn every_kind_of_azure_credentials_works_and_stays_hidden() {
    let Some(azurite) = Azurite::shared() else {
        return;
    };
    let Some(reference) = Reference::get() else {
        return;
    };
    let site = &azurite.site;
    let by_key = RemoteFolder::new(site, "kinds");
    by_key.bring(&reference.input(), "photos");
    let value = |name: &str| {
        let found = site.variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone()).unwrap()
    };
    let [account, key, endpoint] = [
        "AZURE_STORAGE_ACCOUNT",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_ENDPOINT",
    ]
    .map(value);
    let nothing = site.without("AZURE_STORAGE_KEY");
    let by_token = nothing.with("AZURE_STORAGE_SAS_TOKEN", &azurite.token);
    read(&RemoteFolder::new(&by_token, "kinds"), "by-token");
    let connection = format!(
        "DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};BlobEndpoint={endpoint};"
    );
    let by_connection = Site {
        variables: vec![("AZURE_STORAGE_CONNECTION_STRING", connection)],
        ..site.clone()
    };
    read(&RemoteFolder::new(&by_connection, "kinds"), "by-connection");

    // Without credentials, access is denied. This shows that the test above is meaningful.
    let without = RemoteFolder::new(&nothing.with("SLUICE_STORE_ANONYMOUS", "true"), "kinds");
    let run = without.at("by-token");
    let finished = without.run(&["sluice-read", "--run", &run]);
    assert_eq!(finished.code, 2, "{}", said(&finished));

    // The token is in the address of every request. An error about a request must not contain it.
    let away = by_token
        .through(9)
        .with("SLUICE_STORE_RETRY_FOR", "3")
        .with("SLUICE_STORE_TIMEOUT", "2");
    let away = RemoteFolder::new(&away, "kinds");
    let finished = away.run(&["sluice-read", "--run", &run]);
    assert_eq!(finished.code, 75, "{}", said(&finished));
    let forged = azurite.token.replace("sp=rwdlac", "sp=rwdlacx");
    let refused = RemoteFolder::new(&nothing.with("AZURE_STORAGE_SAS_TOKEN", &forged), "kinds");
    let finished = refused.run(&["sluice-read", "--run", &run]);
    assert_eq!(finished.code, 2, "{}", said(&finished));
}

#[test]
fn a_session_token_stays_hidden() {
    let Some(seaweedfs) = SeaweedFs::shared() else {
        return;
    };
    // The server has issued no token, so it denies every one.
    let token = "FwoGZXIvYXdzEHIaDNotToBeShown4f1c";
    let site = seaweedfs.site.with("AWS_SESSION_TOKEN", token);
    let remote = RemoteFolder::new(&site, "session").hiding(token);
    let finished = remote.run(&["sluice-read", "--run", &remote.at("run")]);
    assert_eq!(finished.code, 2, "{}", said(&finished));
}

#[test]
fn uris_with_a_password_are_refused_and_not_repeated() {
    let (user, password) = ("uSeR4f1c", "pAsSwOrD4f1c");
    let site = Site {
        bucket: format!("s3://{user}:{password}@bucket"),
        missing: String::new(),
        port: 9,
        variables: vec![
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:9".to_owned()),
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret+4f1c".to_owned()),
        ],
        secrets: vec![password.to_owned(), "secret+4f1c".to_owned()],
    };
    let remote = RemoteFolder::new(&site, "x");
    let uri = remote.at("run");
    let local = remote.here("run");
    let local = local.to_str().unwrap();
    let mut wrong = Vec::new();
    for command in [
        &["sluice-read", "--run", &uri][..],
        &["sluice-partition", "--run", local, "--input", &uri],
        &["sluice-embed", "--run", local, "--models", &uri],
        &["sluice-embed", "--run", local, "--model", &uri],
        &["sluice-export", "plan", "--run", local, "--output", &uri],
        &["sluice", "run", "--input", local, "--output", &uri],
        &["sluice", "run", "--input", &uri, "--output", local],
        &["sluice", "verify", "--run", &uri],
        &["sluice", "inspect", &uri],
        &["sluice", "explain", "--run", &uri, "a"],
    ] {
        wrong.extend(remote.wrong(command, &[2, 3]));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let finished = remote.run(&["sluice-read", "--run", &uri]);
    assert_eq!(finished.code, 2, "{}", said(&finished));
    let message = &result(&finished)["error"]["message"];
    assert!(message.to_string().contains("password"), "{message}");

    // An endpoint must not contain a password either.
    let endpoint = format!("http://{user}:{password}@127.0.0.1:9");
    let plain = Site {
        bucket: "s3://bucket".to_owned(),
        ..site.with("AWS_ENDPOINT_URL", &endpoint)
    };
    let remote = RemoteFolder::new(&plain, "x");
    let finished = remote.run(&["sluice-read", "--run", &remote.at("run")]);
    assert_eq!(finished.code, 2, "{}", said(&finished));
}

/// URIs with credentials in unusual positions. `HUSH` is the secret.
const FORMS: [&str; 6] = [
    "https://user:HUSH@host/x",
    "S3://user:HUSH@bucket/x",
    "https://user:HU/SHHUSH@host/x",
    "https://host/x?X-Amz-Signature=HUSH",
    "s3://bucket/x?X-Amz-Credential=a&X-Amz-Signature=HUSH",
    "az://container/x?sv=2024&sig=HUSH",
];

#[test]
fn credentials_of_every_form_are_refused_and_not_repeated() {
    let secret = "hUsH4f1c";
    let site = |variables: Vec<(&'static str, String)>| Site {
        bucket: "s3://bucket".to_owned(),
        missing: String::new(),
        port: 9,
        variables,
        secrets: vec![secret.to_owned()],
    };
    let remote = RemoteFolder::new(&site(Vec::new()), "x");
    let local = remote.here("run");
    let local = local.to_str().unwrap();
    let mut wrong = Vec::new();
    for form in FORMS {
        let uri = form.replace("HUSH", secret);
        wrong.extend(remote.wrong(&["sluice-read", "--run", &uri], &[2]));
        let pattern = format!("{uri}*.tar");
        for input in [&uri, &pattern] {
            let partition = ["sluice-partition", "--run", local, "--input", input];
            wrong.extend(remote.wrong(&partition, &[2]));
        }
        let unknown = ["sluice", "run", "--input", local, &uri, "--nothing", &uri];
        wrong.extend(remote.wrong(&unknown, &[2]));
    }
    let key = ("AWS_ACCESS_KEY_ID", "key".to_owned());
    for endpoint in [
        format!("http://127.0.0.1:9/?x={secret}"),
        format!("HTTP://{secret}@127.0.0.1:9"),
        format!("{secret}@127.0.0.1:9"),
    ] {
        let variables = vec![("AWS_ENDPOINT_URL", endpoint), key.clone()];
        let remote = RemoteFolder::new(&site(variables), "x");
        wrong.extend(remote.wrong(&["sluice-read", "--run", &remote.at("run")], &[2]));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn help_shows_no_values_of_variables() {
    let password = "pAsSwOrD4f1c";
    let uri = format!("s3://user:{password}@bucket/x");
    let site = Site {
        bucket: uri.clone(),
        missing: String::new(),
        port: 9,
        variables: VARIABLES.map(|name| (name, uri.clone())).into(),
        secrets: vec![password.to_owned()],
    };
    let remote = RemoteFolder::new(&site, "x");
    let mut wrong = Vec::new();
    for program in PROGRAMS {
        wrong.extend(remote.wrong(&[program, "--help"], &[0]));
        let subcommands: &[&str] = match program {
            "sluice" => &["run", "verify", "inspect", "explain", "models"],
            "sluice-dedup" => &["exact", "perceptual", "fit", "assign", "match"],
            "sluice-export" => &["decide", "plan", "write", "index"],
            _ => &[],
        };
        for subcommand in subcommands {
            wrong.extend(remote.wrong(&[program, subcommand, "--help"], &[0]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn malformed_credentials_are_not_repeated() {
    let Some(azurite) = Azurite::shared() else {
        return;
    };
    let secret = "no-base64-and-not-to-be-shown-4f1c!";
    let mut wrong = Vec::new();
    let connection = format!("AccountName=x;AccountKey={secret};BlobEndpoint=what is this");
    for site in [
        azurite.site.with("AZURE_STORAGE_KEY", secret),
        Site {
            variables: vec![("AZURE_STORAGE_CONNECTION_STRING", connection)],
            ..azurite.site.clone()
        },
        Site {
            variables: vec![("AZURE_STORAGE_CONNECTION_STRING", secret.to_owned())],
            ..azurite.site.clone()
        },
    ] {
        let remote = RemoteFolder::new(&site, "malformed").hiding(secret);
        wrong.extend(remote.wrong(&["sluice-read", "--run", &remote.at("run")], &[2]));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
