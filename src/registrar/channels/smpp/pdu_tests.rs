use super::*;

fn state(receipt: Option<(String, Delivery)>) -> Option<Delivery> {
    receipt.map(|(_, delivery)| delivery)
}

fn deliver(esm_class: u8, text: &str) -> DeliverSm {
    DeliverSm::builder()
        .esm_class(EsmClass::from(esm_class))
        .short_message(OctetString::from_slice(text.as_bytes()).unwrap())
        .build()
}

#[test]
fn receipts_are_read_from_the_text_too() {
    let read = |word: &str| {
        let text = format!("id:00ab12 sub:001 dlvrd:001 done date:2611300000 stat:{word} err:0");
        receipt(&deliver(4, &text))
    };
    assert_eq!(read("DELIVRD"), Some(("00ab12".into(), Delivery::Delivered)));
    for word in ["EXPIRED", "DELETED", "UNDELIV", "UNKNOWN", "REJECTD"] {
        assert_eq!(state(read(word)), Some(Delivery::Failed), "{word}");
    }
    for word in ["ENROUTE", "ACCEPTD", ""] {
        assert_eq!(read(word), None, "{word}");
    }
    // What a person writes back is none, whatever it says.
    assert_eq!(receipt(&deliver(0, "id:1 stat:DELIVRD")), None);
    for text in ["", "id:", "id: stat:DELIVRD", "stat:DELIVRD", "id:7"] {
        assert_eq!(receipt(&deliver(4, text)), None, "{text:?}");
    }
    // The fields decide where a centre sends both.
    let mut both = deliver(4, "id:1 stat:DELIVRD");
    both.push_tlv(rusmpp::tlvs::MessageDeliveryRequestTlvValue::MessageState(
        MessageState::Undeliverable,
    ));
    assert_eq!(receipt(&both), Some(("1".into(), Delivery::Failed)));
}

#[test]
fn senders_have_their_types() {
    let types = |text| source(text).map(|(ton, npi, _)| (ton, npi)).ok();
    assert_eq!(types("+4915112345678"), Some((Ton::International, Npi::Isdn)));
    assert_eq!(types("12345"), Some((Ton::NetworkSpecific, Npi::Unknown)));
    assert_eq!(types("Finder 24"), Some((Ton::Alphanumeric, Npi::Unknown)));
    for text in ["", "+", "+12a", "123456789", "TwelveLetter", "Fünf", " x", "+1234567890123456"] {
        assert_eq!(types(text), None, "{text:?}");
    }
}
