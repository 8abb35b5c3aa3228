//! Configurations and files that are refused.

use super::{Files, mode_of, providers};
use crate::registrar::channels::files::{host_and_port, is_private};
use crate::registrar::channels::{Channels, Config, ConfigError, Provider};

fn made(config: &str) -> Result<Channels, ConfigError> {
    let config: Config = toml::from_str(config).unwrap();
    Channels::new(&config, &providers(), None)
}

fn error(config: &str) -> String {
    made(config).err().unwrap().to_string()
}

const SMPP: &str = "kind = \"smpp\"\naddress = \"127.0.0.1:1\"\ntls = false\nsource = \"F\"\n";

#[tokio::test]
async fn credentials_that_others_can_read_are_refused() {
    let files = Files::new();
    let path = files.text("credentials");
    let table = format!("dp = \"F\"\n[gateways.a]\n{SMPP}credentials = \"{path}\"\n");
    made(&table).unwrap();
    for mode in [0o640, 0o604, 0o660] {
        mode_of(&files.path("credentials"), mode);
        let error = error(&table);
        assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("chmod 600"));
    }
    for text in ["", "user\n", "user\n\n", "user\npassword\nmore\n"] {
        files.credentials("credentials", text, 0o600);
        let error = error(&table);
        assert!(error.contains("expected two lines"), "{error}");
        assert!(!error.contains("password\n"), "{error}");
    }
    files.credentials("credentials", "user\nlonger-than-8\n", 0o600);
    let error = error(&table);
    assert!(error.contains("at most 8 characters") && !error.contains("longer"), "{error}");
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused() {
    let http = "kind = \"http\"\nurl = \"http://127.0.0.1/";
    let cases = [
        ("waiting-max = 0".to_owned(), "waiting-max is 0; expected 1 to"),
        ("receipt-wait-ms = 300001".to_owned(), "receipt-wait-ms is 300001"),
        ("sms = [\"a\"]".to_owned(), "channels.sms names the gateway \"a\", which is not there"),
        (format!("[gateways.\"a b\"]\n{http}?{{to}}{{text}}\""), "a name of at most 32"),
        (format!("[gateways.a]\n{http}?{{text}}\""), "has no {to} or {digits}"),
        (format!("[gateways.a]\n{http}?{{to}}\""), "has no {text}"),
        (format!("[gateways.a]\n{http}?{{to}}{{text}}{{code}}\""), "has {code}; expected {to}, "),
        (format!("[gateways.a]\n{http}?{{to}}{{text}}{{user}}\""), "expected credentials ="),
        (format!("[gateways.a]\n{http}?{{to}}{{text}}{{receipt_url}}\""), "expected receipt-url"),
        (
            "[gateways.a]\nkind = \"http\"\nurl = \"http://192.0.2.1/?{to}{text}\"".to_owned(),
            "http:// is only for this machine",
        ),
        (
            "[gateways.a]\nkind = \"http\"\nurl = \"ftp://127.0.0.1/?{to}{text}\"".to_owned(),
            "expected a url such as https://",
        ),
        (format!("email = [\"a\", \"a\"]\n[gateways.a]\n{http}?{{to}}{{text}}\""), "twice"),
        (
            "sms = [\"a\"]\n[gateways.a]\nkind = \"smtp\"\naddress = \"localhost:1\"\n\
             tls = \"plain\"\nfrom = \"a@b.example\""
                .to_owned(),
            "whose kind does not carry that",
        ),
        (
            "[gateways.a]\nkind = \"smtp\"\naddress = \"localhost\"\nfrom = \"a@b.example\""
                .to_owned(),
            "expected an address such as mail.example:587",
        ),
    ];
    for (config, expected) in cases {
        let error = error(&format!("dp = \"F\"\n{config}"));
        assert!(error.contains(expected), "{config}\n{error}");
    }
    for unknown in ["sm = []", "[gateways.a]\nkind = \"loopback\"", "[gateways.a]\nkind = \"fax\""]
    {
        toml::from_str::<Config>(&format!("dp = \"F\"\n{unknown}")).unwrap_err();
    }
    let unknown = format!("dp = \"F\"\n[gateways.a]\n{SMPP}credentials = \"c\"\ncolour = 1");
    assert!(toml::from_str::<Config>(&unknown).unwrap_err().to_string().contains("colour"));
}

#[tokio::test]
async fn a_provider_whose_message_does_not_fit_is_refused() {
    let config: Config = toml::from_str("dp = \"Finder\"").unwrap();
    let long = Provider { domain: "ap.example".into(), name: "x".repeat(100) };
    let error = Channels::new(&config, &[long], None).err().unwrap().to_string();
    assert!(error.contains("ap.example") && error.contains("septets"), "{error}");
}

#[test]
fn private_networks_are_told_apart() {
    for address in [
        "127.0.0.1",
        "::1",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "fd00::1",
        "::ffff:10.0.0.1",
        "169.254.1.1",
        "fe80::1",
    ] {
        assert!(is_private(address.parse().unwrap()), "{address}");
    }
    for address in ["8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8", "100.64.0.1"] {
        assert!(!is_private(address.parse().unwrap()), "{address}");
    }
    assert_eq!(host_and_port("[::1]:7"), Some(("::1".into(), 7)));
    for text in ["", "a", ":1", "a:", "a:65536", "a/b:1", "user@a:1"] {
        assert_eq!(host_and_port(text), None, "{text}");
    }
}
