use proptest::prelude::*;

use super::*;

fn parse(value: &str) -> Result<Identity<'_>, Reason> {
    Identity::parse(value.as_bytes())
}

fn text(part: Option<&[u8]>) -> Option<&str> {
    part.map(|part| std::str::from_utf8(part).unwrap())
}

/// ST-22: quoting and order of the parameters do not matter, unknown ones are ignored.
#[test]
fn forms() {
    for value in [
        "a.b.c;info=<https://x.example/c>;alg=ES256;ppt=shaken",
        "a.b.c;info=<https://x.example/c>;alg=\"ES256\";ppt=\"shaken\"",
        " a.b.c ; ppt=shaken ;alg=ES256; info = <https://x.example/c> ",
        "a.b.c;x;y=z;z=\"q;,\\\"\";ppt=shaken;ALG=ES256;INFO=<https://x.example/c>",
        "a.b.c\r\n ;info=<https://x.example/c>\r\n ;alg=ES256;ppt=shaken",
    ] {
        let identity = parse(value).unwrap();
        assert_eq!(identity.token, b"a.b.c", "{value}");
        assert_eq!(identity.info, Info::Url(b"https://x.example/c"), "{value}");
        assert_eq!(text(identity.alg), Some("ES256"));
        assert_eq!(text(identity.ppt), Some("shaken"));
    }
    let bare = parse("..sig;info=<https://x.example/a;b,c>").unwrap();
    assert!(bare.is_compact());
    assert_eq!((bare.alg, bare.ppt), (None, None));
    assert_eq!(bare.info, Info::Url(b"https://x.example/a;b,c"));
}

/// ST-25: typed errors, the crash inputs of other products among them.
#[test]
fn broken_values() {
    for value in ["", " ", ";", ";info=<https://x>", "a b.c;info=<https://x>", "é.b.c;info=<u>"] {
        assert_eq!(parse(value), Err(Reason::IdentitySyntax), "{value}");
    }
    for value in [
        "a.b.c;=x",
        "a.b.c;;alg=ES256",
        "a.b.c;alg",
        "a.b.c;alg=",
        "a.b.c;alg=\"ES256",
        "a.b.c;ppt=shaken;ppt=shaken",
        "a.b.c;x=\"a",
        "\"a.b.c\";info=<https://x>",
    ] {
        assert_eq!(parse(value), Err(Reason::IdentitySyntax), "{value}");
    }
    assert_eq!(parse("a.b.c").unwrap().info, Info::Missing);
    assert_eq!(parse("a.b.c;alg=ES256").unwrap().info, Info::Missing);
    for value in [
        "a.b.c;info=https://x",
        "a.b.c;info",
        "a.b.c;info=",
        "a.b.c;info=<>",
        "a.b.c;info=<https://x",
        "a.b.c;info=\"<https://x>\"",
        "a.b.c;info=<https://x>;info=<https://x>",
        "a.b.c;info=<https://x y>",
    ] {
        assert_eq!(parse(value).unwrap().info, Info::Malformed, "{value}");
    }
    let long = format!("{};info=<https://x>", "a".repeat(IDENTITY_VALUE_BYTES_MAX));
    assert_eq!(parse(&long), Err(Reason::IdentityTooLong));
    let many = format!("a.b.c{}", ";x".repeat(IDENTITY_PARAMS_MAX + 1));
    assert_eq!(parse(&many), Err(Reason::IdentitySyntax));
}

/// ST-24.
#[test]
fn comma_joined() {
    let joined = b"a.b.c;info=<https://x,y>;ppt=shaken , d.e.f;x=\"1,2\";info=<https://z>,,";
    let tokens: Vec<_> = elements(joined).map(|one| Identity::parse(one).unwrap().token).collect();
    assert_eq!(tokens, [b"a.b.c".as_slice(), b"d.e.f"]);
    assert_eq!(elements(b" , ,").count(), 0);
}

proptest! {
    #[test]
    fn total(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        for element in elements(&bytes) {
            let _ = Identity::parse(element);
        }
    }

    #[test]
    fn total_on_near_misses(text in "[a.;=<>\", \\\\infoalgpt-]{0,60}") {
        for element in elements(text.as_bytes()) {
            let _ = Identity::parse(element);
        }
    }
}
