//! Plain tar archives (POSIX ustar) whose octets depend on names and contents alone: no times, no
//! owners, modes of 0644.

const BLOCK: usize = 512;
/// Longest name; the format has room for no more without its prefix field.
const NAME_MAX_BYTES: usize = 100;

/// Writes files in the order given.
///
/// # Errors
/// Names a file whose name or size does not fit.
pub(super) fn write(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>, String> {
    let room = files.iter().map(|(_, content)| content.len() + 2 * BLOCK).sum::<usize>();
    let mut out = Vec::with_capacity(room + 2 * BLOCK);
    for (name, content) in files {
        out.extend_from_slice(&header(name, content.len())?);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    Ok(out)
}

fn header(name: &str, size: usize) -> Result<[u8; BLOCK], String> {
    let mut block = [0_u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    if name.len() > NAME_MAX_BYTES {
        return Err(format!("{name}: the name is too long for the archive"));
    }
    let size = format!("{size:011o}");
    if size.len() > 11 {
        return Err(format!("{name}: too large for the archive"));
    }
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, size.as_bytes());
    put(136, b"00000000000");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\0");
    put(263, b"00");
    let sum: u32 = block.iter().map(|octet| u32::from(*octet)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// Reads the files of an archive that [`write`] could have made.
///
/// # Errors
/// Says where the archive is not whole.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<(String, &[u8])>, String> {
    let mut files = Vec::new();
    let mut at = 0;
    loop {
        let block =
            bytes.get(at..at + BLOCK).ok_or_else(|| format!("the archive ends at octet {at}"))?;
        if block.iter().all(|octet| *octet == 0) {
            let rest = bytes.get(at..).unwrap_or_default();
            let sound = rest.len() == 2 * BLOCK && rest.iter().all(|octet| *octet == 0);
            return if sound { Ok(files) } else { Err("something follows the archive".to_owned()) };
        }
        let end = block[..NAME_MAX_BYTES].iter().position(|octet| *octet == 0);
        let name = std::str::from_utf8(&block[..end.unwrap_or(NAME_MAX_BYTES)])
            .map_err(|_| format!("the name at octet {at} is no text"))?;
        let size = std::str::from_utf8(&block[124..135])
            .ok()
            .and_then(|digits| usize::from_str_radix(digits, 8).ok())
            .ok_or_else(|| format!("{name}: the size does not read"))?;
        // The same header byte for byte, so that nothing can hide in one.
        if header(name, size)? != block {
            return Err(format!("{name}: its header was changed"));
        }
        at += BLOCK;
        let content = at
            .checked_add(size)
            .and_then(|end| bytes.get(at..end))
            .ok_or_else(|| format!("{name}: the archive ends inside it"))?;
        let padded = size.next_multiple_of(BLOCK);
        let padding = bytes.get(at + size..at + padded).unwrap_or_default();
        if padding.iter().any(|octet| *octet != 0) {
            return Err(format!("{name}: something stands behind it"));
        }
        files.push((name.to_owned(), content));
        at += padded;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_no_octet_can_change() {
        let files = vec![
            ("manifest.json".to_owned(), b"{}".to_vec()),
            ("empty".to_owned(), Vec::new()),
            ("block".to_owned(), vec![7; 512]),
        ];
        let bytes = write(&files).unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let back: Vec<(String, Vec<u8>)> =
            read(&bytes).unwrap().into_iter().map(|(name, c)| (name, c.to_vec())).collect();
        assert_eq!(back, files);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let same = read(&changed).is_ok_and(|found| {
                found.iter().zip(&files).all(|(a, b)| a.0 == b.0 && a.1 == b.1) && found.len() == 3
            });
            assert!(!same, "octet {at}");
        }
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length}");
        }
        assert!(write(&[("x".repeat(101), Vec::new())]).is_err());
    }
}
