//! CRC32C (Castagnoli), by tables: sixteen bytes at a time.

const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[n][byte]`: what `byte` does to the checksum with `n` bytes behind it.
static TABLES: [[u32; 256]; 16] = tables();

const fn tables() -> [[u32; 256]; 16] {
    let mut tables = [[0; 256]; 16];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut n = 1;
    while n < 16 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[n - 1][byte];
            tables[n][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        n += 1;
    }
    tables
}

/// The checksum of all the bytes.
pub fn crc32c(data: &[u8]) -> u32 {
    let mut crc = !0;
    let (chunks, rest) = data.as_chunks::<16>();
    for chunk in chunks {
        let mut word = *chunk;
        for (byte, mixed) in word.iter_mut().zip(u32::to_le_bytes(crc)) {
            *byte ^= mixed;
        }
        crc = 0;
        for (n, &byte) in word.iter().enumerate() {
            crc ^= TABLES[15 - n][byte as usize];
        }
    }
    for &byte in rest {
        crc = (crc >> 8) ^ TABLES[0][(crc as u8 ^ byte) as usize];
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_values() {
        assert_eq!(crc32c(b""), 0);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn every_length_agrees_with_one_byte_at_a_time() {
        let data: Vec<u8> = (0..100u32).map(|n| (n * 167 + 13) as u8).collect();
        for length in 0..data.len() {
            let slow = !data[..length].iter().fold(!0, |crc: u32, &byte| {
                (crc >> 8) ^ TABLES[0][(crc as u8 ^ byte) as usize]
            });
            assert_eq!(crc32c(&data[..length]), slow, "{length}");
        }
    }
}
