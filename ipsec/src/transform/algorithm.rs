//! The parts a suite is made of, with the lengths that their RFCs give them.

/// Length of an AES key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum AesKey {
    Bits128,
    Bits192,
    Bits256,
}

impl AesKey {
    pub(super) const ALL: [AesKey; 3] = [AesKey::Bits128, AesKey::Bits192, AesKey::Bits256];

    /// In bytes.
    pub const fn len(self) -> usize {
        match self {
            AesKey::Bits128 => 16,
            AesKey::Bits192 => 24,
            AesKey::Bits256 => 32,
        }
    }

    /// Never.
    pub const fn is_empty(self) -> bool {
        false
    }

    pub(super) fn of(bytes: usize) -> Option<AesKey> {
        AesKey::ALL.into_iter().find(|key| key.len() == bytes)
    }
}

/// Length of an AEAD's ICV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum Icv {
    Bytes8,
    Bytes12,
    Bytes16,
}

impl Icv {
    pub(super) const ALL: [Icv; 3] = [Icv::Bytes8, Icv::Bytes12, Icv::Bytes16];

    /// In bytes.
    pub const fn len(self) -> usize {
        match self {
            Icv::Bytes8 => 8,
            Icv::Bytes12 => 12,
            Icv::Bytes16 => 16,
        }
    }

    /// Never.
    pub const fn is_empty(self) -> bool {
        false
    }
}

/// A cipher that leaves integrity to an [`Auth`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// None (RFC 2410).
    Null,
    /// AES-CBC (RFC 3602).
    AesCbc(AesKey),
    /// AES-CTR (RFC 3686); four bytes of nonce behind the key.
    AesCtr(AesKey),
    /// 3DES-CBC (RFC 2451).
    #[cfg(feature = "legacy")]
    TripleDes,
}

impl Cipher {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Cipher> {
        let aes = AesKey::ALL.into_iter().flat_map(|key| [Cipher::AesCbc(key), Cipher::AesCtr(key)]);
        let all = std::iter::once(Cipher::Null).chain(aes);
        #[cfg(feature = "legacy")]
        let all = all.chain([Cipher::TripleDes]);
        all
    }

    pub(super) const fn key_len(self) -> usize {
        match self {
            Cipher::Null => 0,
            Cipher::AesCbc(key) | Cipher::AesCtr(key) => key.len(),
            #[cfg(feature = "legacy")]
            Cipher::TripleDes => 24,
        }
    }

    pub(super) const fn salt_len(self) -> usize {
        match self {
            Cipher::AesCtr(_) => 4,
            _ => 0,
        }
    }

    pub(super) const fn iv_len(self) -> usize {
        match self {
            Cipher::Null => 0,
            Cipher::AesCbc(_) => 16,
            Cipher::AesCtr(_) => 8,
            #[cfg(feature = "legacy")]
            Cipher::TripleDes => 8,
        }
    }

    pub(super) const fn align(self) -> usize {
        match self {
            Cipher::AesCbc(_) => 16,
            #[cfg(feature = "legacy")]
            Cipher::TripleDes => 8,
            _ => 4,
        }
    }

    /// The word of setkey(8) behind `-E`.
    pub const fn setkey_name(self) -> &'static str {
        match self {
            Cipher::Null => "null",
            Cipher::AesCbc(_) => "aes-cbc",
            Cipher::AesCtr(_) => "aes-ctr",
            #[cfg(feature = "legacy")]
            Cipher::TripleDes => "3des-cbc",
        }
    }
}

/// An integrity algorithm, of AH or beside a [`Cipher`]. Its key has one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Auth {
    /// HMAC-SHA1-96 (RFC 2404).
    HmacSha1,
    /// HMAC-SHA2-256-128 (RFC 4868).
    HmacSha256,
    /// HMAC-SHA2-384-192 (RFC 4868).
    HmacSha384,
    /// HMAC-SHA2-512-256 (RFC 4868).
    HmacSha512,
    /// AES-CMAC-96 (RFC 4494).
    AesCmac,
    /// AES-XCBC-MAC-96 (RFC 3566).
    AesXcbc,
    /// HMAC-MD5-96 (RFC 2403).
    #[cfg(feature = "legacy")]
    HmacMd5,
}

impl Auth {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Auth> {
        use Auth::{AesCmac, AesXcbc, HmacSha1, HmacSha256, HmacSha384, HmacSha512};
        let all = [HmacSha1, HmacSha256, HmacSha384, HmacSha512, AesCmac, AesXcbc].into_iter();
        #[cfg(feature = "legacy")]
        let all = all.chain([Auth::HmacMd5]);
        all
    }

    /// Bytes of its key.
    pub const fn key_len(self) -> usize {
        match self {
            Auth::HmacSha1 => 20,
            Auth::HmacSha256 => 32,
            Auth::HmacSha384 => 48,
            Auth::HmacSha512 => 64,
            Auth::AesCmac | Auth::AesXcbc => 16,
            #[cfg(feature = "legacy")]
            Auth::HmacMd5 => 16,
        }
    }

    /// Bytes of what it sends.
    pub const fn icv_len(self) -> usize {
        match self {
            Auth::HmacSha256 => 16,
            Auth::HmacSha384 => 24,
            Auth::HmacSha512 => 32,
            _ => 12,
        }
    }

    /// The word of setkey(8) behind `-A`.
    pub const fn setkey_name(self) -> &'static str {
        match self {
            Auth::HmacSha1 => "hmac-sha1",
            Auth::HmacSha256 => "hmac-sha256",
            Auth::HmacSha384 => "hmac-sha384",
            Auth::HmacSha512 => "hmac-sha512",
            Auth::AesCmac => "aes-cmac",
            Auth::AesXcbc => "aes-xcbc-mac",
            #[cfg(feature = "legacy")]
            Auth::HmacMd5 => "hmac-md5",
        }
    }
}
