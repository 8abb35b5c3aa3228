//! Records of a sample database, the same for the same number: telephone numbers that are reserved
//! for fiction while they last, then addresses below the example domains of RFC 2606.

use std::io::{self, Write};

/// Area codes of the United States, each with 555-0100 to 555-0199 reserved (ATIS-0300115).
const US_AREA_CODES: &str = "\
    201 202 203 205 206 207 208 209 210 212 213 214 215 216 217 218 219 224 225 228 229 231 234 \
    239 240 248 251 252 253 254 256 260 262 267 269 270 276 281 301 302 303 304 305 307 308 309 \
    310 312 313 314 315 316 317 318 319 320 321 323 325 330 334 336 337 339 347 351 352 360 361 \
    386 401 402 404 405 406 407 408 409 410 412 413 414 415 417 419 423 425 432 434 435 440 443 \
    469 478 479 480 484 501 502 503 504 505 507 508 509 510 512 513 515 516 517 518 520 530 540 \
    541 551 559 561 562 563 567 570 571 573 574 575 580 585 586 601 602 603 605 606 607 608 609 \
    610 612 614 615 616 617 618 619 620 623 626 630 631 636 641 646 650 651 660 661 662 678 682 \
    701 702 703 704 706 707 708 712 713 714 715 716 717 718 719 720 724 727 731 732 734 740 757 \
    760 763 765 770 772 773 774 775 781 785 786 801 802 803 804 805 806 808 810 812 813 814 815 \
    816 817 818 828 830 831 832 843 845 847 850 856 857 858 859 860 862 863 864 865 870 878 901 \
    903 904 906 907 908 909 910 912 913 914 915 916 917 918 919 920 925 928 931 936 937 940 941 \
    947 949 951 952 954 956 970 971 972 973 978 979 980 985 989";

const DOMAINS: [&str; 3] = ["example.com", "example.org", "example.net"];
const PROVIDERS: u64 = 12;

/// Writes the header and so many records as CSV.
pub fn write(records: u64, out: impl Write) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(1 << 18, out);
    out.write_all(b"sii,value\n")?;
    let mut index = 0;
    for number in numbers().take(usize::try_from(records).unwrap_or(usize::MAX)) {
        write!(out, "{number},")?;
        write_value(&mut out, index)?;
        index += 1;
    }
    for index in index..records {
        let domain = DOMAINS[(index % DOMAINS.len() as u64) as usize];
        write!(out, "user{index}@{domain},")?;
        write_value(&mut out, index)?;
    }
    out.flush()
}

fn numbers() -> impl Iterator<Item = String> {
    let codes = US_AREA_CODES.split_ascii_whitespace();
    codes.flat_map(|code| (100..200).map(move |line| format!("+1{code}5550{line}")))
}

fn write_value(out: &mut impl Write, index: u64) -> io::Result<()> {
    writeln!(out, "im:u{index}@provider{}.example", index % PROVIDERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_the_same_for_the_same_number_and_repeats_no_key() {
        let sample = |records| {
            let mut out = Vec::new();
            write(records, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let text = sample(150_000);
        assert_eq!(text, sample(150_000));
        assert_eq!(text.lines().count(), 150_001);
        assert!(text.starts_with("sii,value\n+12015550100,im:u0@provider0.example\n"));
        assert!(text.contains("\n+19895550199,im:u"));
        assert!(text.contains("@example.net,im:u"));
        let mut keys: Vec<&str> =
            text.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
        assert!(keys.iter().all(|key| !key.starts_with('+') || key.len() <= 16));
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 150_000);
        assert_eq!(sample(0), "sii,value\n");
    }
}
