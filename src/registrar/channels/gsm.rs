//! The GSM 7 bit default alphabet and its extension table (3GPP TS 23.038, 6.2.1), each septet in
//! an octet of its own, as SMPP carries it with data coding 0.

/// The default alphabet; the place of a character is its septet. 0x1B is the escape to the
/// extension table.
const ALPHABET: [char; 128] = [
    '@', '£', '$', '¥', 'è', 'é', 'ù', 'ì', 'ò', 'Ç', '\n', 'Ø', 'ø', '\r', 'Å', 'å', 'Δ', '_',
    'Φ', 'Γ', 'Λ', 'Ω', 'Π', 'Ψ', 'Σ', 'Θ', 'Ξ', '\u{1b}', 'Æ', 'æ', 'ß', 'É', ' ', '!', '"', '#',
    '¤', '%', '&', '\'', '(', ')', '*', '+', ',', '-', '.', '/', '0', '1', '2', '3', '4', '5', '6',
    '7', '8', '9', ':', ';', '<', '=', '>', '?', '¡', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I',
    'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', 'Ä', 'Ö',
    'Ñ', 'Ü', '§', '¿', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o',
    'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', 'ä', 'ö', 'ñ', 'ü', 'à',
];

/// The extension table: after the escape, these septets are other characters.
const EXTENSION: [(char, u8); 10] = [
    ('\u{c}', 0x0a),
    ('^', 0x14),
    ('{', 0x28),
    ('}', 0x29),
    ('\\', 0x2f),
    ('[', 0x3c),
    ('~', 0x3d),
    (']', 0x3e),
    ('|', 0x40),
    ('€', 0x65),
];

const ESCAPE: u8 = 0x1b;

/// The septets of a character; the first is the escape where there are two.
fn septets_of(character: char) -> Option<(Option<u8>, u8)> {
    if character == '\u{1b}' {
        return None;
    }
    if let Some(place) = ALPHABET.iter().position(|&known| known == character) {
        return Some((None, place as u8));
    }
    let found = EXTENSION.iter().find(|(known, _)| *known == character);
    found.map(|&(_, septet)| (Some(ESCAPE), septet))
}

/// How many septets a text takes; the character that the alphabet does not have is the error.
pub fn septets(text: &str) -> Result<usize, char> {
    text.chars().try_fold(0, |sum, character| match septets_of(character) {
        Some((Some(_), _)) => Ok(sum + 2),
        Some((None, _)) => Ok(sum + 1),
        None => Err(character),
    })
}

/// The text, a septet in each octet.
pub(crate) fn encode(text: &str) -> Result<Vec<u8>, char> {
    // Allocated once, so that no copy of a part stays behind.
    let mut octets = Vec::with_capacity(septets(text)?);
    for character in text.chars() {
        let (escape, septet) = septets_of(character).ok_or(character)?;
        octets.extend(escape);
        octets.push(septet);
    }
    Ok(octets)
}
