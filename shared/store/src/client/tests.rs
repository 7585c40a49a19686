//! Classes of errors for the answers that stores send. opendal keeps most of an answer as text, so
//! these tables also check the texts of the version in `Cargo.lock`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use opendal::services::{Azblob, Gcs, S3};

use super::*;
use crate::stop::StopFlag;
use crate::transport::{RequestCounts, Transport};

fn client(operator: Operator) -> Client {
    let transport = Transport::new(RequestCounts::default()).unwrap();
    let remote = Remote {
        endpoint: "http://store".into(),
        credentials: "set CREDENTIALS",
        deadline: Duration::from_secs(1),
    };
    let io = Io::start(StopFlag::default()).unwrap();
    Client::remote(operator.layer(transport), io, remote)
}

fn far() -> Client {
    client(Operator::new(opendal::services::Memory::default()).unwrap())
}

/// Answers every request with this status and body. Returns the endpoint.
fn server(status: u16, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            // A request without a body ends with an empty line.
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && connection.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close");
            let _ = write!(connection, "{head}\r\n\r\n{body}");
        }
    });
    endpoint
}

fn s3(endpoint: &str) -> Operator {
    let builder = S3::default().bucket("b").region("us-east-1");
    let builder = builder.endpoint(endpoint).skip_signature();
    Operator::new(builder).unwrap()
}

fn azure(endpoint: &str) -> Operator {
    let builder = Azblob::default().container("b").account_name("a");
    let builder = builder.endpoint(endpoint).account_key("a2V5");
    Operator::new(builder).unwrap()
}

fn gcs(endpoint: &str) -> Operator {
    let builder = Gcs::default().bucket("b").endpoint(endpoint);
    Operator::new(builder.skip_signature()).unwrap()
}

/// The kind of store, the status and body of its answer, the expected class, and a word of our
/// error.
type Case = (fn(&str) -> Operator, u16, &'static str, Class, &'static str);

const ANSWERS: &[Case] = &[
    (
        s3,
        404,
        "<Error><Code>NoSuchKey</Code><Message>m</Message></Error>",
        Class::Data,
        "no such object",
    ),
    (
        s3,
        404,
        "<Error><Code>NoSuchBucket</Code><Message>m</Message></Error>",
        Class::Usage,
        "no such bucket",
    ),
    (
        s3,
        403,
        "<Error><Code>AccessDenied</Code><Message>m</Message></Error>",
        Class::Usage,
        "permission denied",
    ),
    (
        s3,
        403,
        "<Error><Code>SignatureDoesNotMatch</Code><Message>m</Message></Error>",
        Class::Usage,
        "permission denied",
    ),
    (
        s3,
        301,
        "<Error><Code>PermanentRedirect</Code><Message>m</Message></Error>",
        Class::Usage,
        "region",
    ),
    (
        s3,
        400,
        "<Error><Code>InvalidArgument</Code><Message>m</Message></Error>",
        Class::Usage,
        "InvalidArgument: m",
    ),
    (
        s3,
        416,
        "<Error><Code>InvalidRange</Code><Message>m</Message></Error>",
        Class::Data,
        "shorter",
    ),
    (
        s3,
        429,
        "<Error><Code>TooManyRequests</Code><Message>m</Message></Error>",
        Class::Transient,
        "TooManyRequests: m",
    ),
    (
        s3,
        500,
        "<Error><Code>InternalError</Code><Message>m</Message></Error>",
        Class::Transient,
        "InternalError: m",
    ),
    (
        s3,
        503,
        "<Error><Code>SlowDown</Code><Message>m</Message></Error>",
        Class::Transient,
        "SlowDown: m",
    ),
    (s3, 503, "busy", Class::Transient, "busy"),
    (
        azure,
        404,
        "<Error><Code>ContainerNotFound</Code><Message>m</Message></Error>",
        Class::Usage,
        "no such bucket",
    ),
    (
        azure,
        404,
        "<Error><Code>BlobNotFound</Code><Message>m</Message></Error>",
        Class::Data,
        "no such object",
    ),
    (
        azure,
        403,
        "<Error><Code>AuthenticationFailed</Code><Message>m</Message></Error>",
        Class::Usage,
        "permission denied",
    ),
    (
        azure,
        503,
        "<Error><Code>ServerBusy</Code><Message>m</Message></Error>",
        Class::Transient,
        "ServerBusy",
    ),
    (
        gcs,
        404,
        r#"{"error":{"code":404,"message":"The specified bucket does not exist.","errors":[]}}"#,
        Class::Usage,
        "no such bucket",
    ),
    (
        gcs,
        404,
        r#"{"error":{"code":404,"message":"No such object: b/k","errors":[]}}"#,
        Class::Data,
        "no such object",
    ),
    (
        gcs,
        403,
        r#"{"error":{"code":403,"message":"m","errors":[]}}"#,
        Class::Usage,
        "permission denied",
    ),
    (
        gcs,
        503,
        r#"{"error":{"code":503,"message":"m","errors":[]}}"#,
        Class::Transient,
        "endpoint",
    ),
];

#[test]
fn answers_of_stores_are_classed() {
    for &(operator, status, body, class, word) in ANSWERS {
        let client = client(operator(&server(status, body)));
        let error = client.wait(client.operator.read("k")).unwrap_err();
        let error = client.error(&error, "store://b/k");
        let shown = error.to_string();
        assert_eq!(error.class(), class, "{status} {body}: {shown}");
        assert!(shown.contains(word), "{status} {body}: {shown}");
        assert!(shown.starts_with("store://b/k"), "{shown}");
    }
}

#[test]
fn errors_name_object_and_endpoint_and_are_classed() {
    let throttled = opendal::Error::new(
        ErrorKind::RateLimited,
        r#"S3Error { code: "SlowDown", message: "Please reduce", resource: "", request_id: "" }"#,
    );
    let error = far().error(&throttled.set_temporary(), "s3://b/k");
    let shown = "s3://b/k: SlowDown: Please reduce (endpoint http://store)";
    assert_eq!(
        (error.class(), error.to_string().as_str()),
        (Class::Transient, shown)
    );
}

#[test]
fn missing_credentials_are_usage_with_a_hint() {
    let builder = S3::default().bucket("b").region("us-east-1");
    let builder = builder.endpoint("http://127.0.0.1:9");
    let builder = builder.disable_config_load().disable_ec2_metadata();
    let client = client(Operator::new(builder).unwrap());
    let error = client.wait(client.operator.read("k")).unwrap_err();
    assert!(!error.is_temporary(), "it would be tried again: {error}");
    let error = client.error(&error, "s3://b/k");
    assert_eq!(error.class(), Class::Usage, "{error}");
    let shown = "s3://b/k: no usable credentials (endpoint http://store)\n  hint: set CREDENTIALS";
    assert_eq!(error.to_string(), shown);
}

#[test]
fn a_request_without_an_answer_is_given_up() {
    let error = far().wait(std::future::pending::<opendal::Result<()>>());
    let error = far().error(&error.unwrap_err(), "s3://b/k");
    assert_eq!(error.class(), Class::Transient);
    assert!(
        error.to_string().contains("no answer within 1 s"),
        "{error}"
    );
}

#[test]
fn a_signal_is_told_apart_by_type() {
    let stopped = opendal::Error::new(ErrorKind::Unexpected, "anything");
    let stopped = stopped.set_source(Error::stopped()).set_persistent();
    assert_eq!(far().error(&stopped, "s3://b/k").class(), Class::Stopped);
}
