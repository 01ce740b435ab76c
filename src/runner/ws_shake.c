#include "runner/ws_shake.h"

#include "base/encode.h"
#include "base/err.h"

/* --- SHA-1 (FIPS 180-4) --- */

static uint32_t rotate(uint32_t v, unsigned n)
{
    return v << n | v >> (32 - n);
}

static void mix(uint32_t h[5], const unsigned char block[64])
{
    uint32_t w[80], s[5];
    for (size_t i = 0; i < 16; i++) {
        const unsigned char *p = block + 4 * i;
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    }
    for (size_t i = 16; i < 80; i++) {
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    }
    memcpy(s, h, sizeof s);
    for (size_t i = 0; i < 80; i++) {
        uint32_t f = i < 20   ? ((s[1] & s[2]) | (~s[1] & s[3])) + 0x5a827999
                     : i < 40 ? (s[1] ^ s[2] ^ s[3]) + 0x6ed9eba1
                     : i < 60 ? ((s[1] & s[2]) | (s[1] & s[3]) | (s[2] & s[3])) + 0x8f1bbcdc
                              : (s[1] ^ s[2] ^ s[3]) + 0xca62c1d6;
        uint32_t next = rotate(s[0], 5) + f + s[4] + w[i];
        s[4] = s[3];
        s[3] = s[2];
        s[2] = rotate(s[1], 30);
        s[1] = s[0];
        s[0] = next;
    }
    for (size_t i = 0; i < 5; i++) {
        h[i] += s[i];
    }
}

void mu_sha1(mu_bytes data, unsigned char ret[MU_SHA1_LEN])
{
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    unsigned char block[128] = {0};
    size_t at = 0, left;
    for (; data.len - at >= 64; at += 64) {
        mix(h, (const unsigned char *)data.ptr + at);
    }
    left = data.len - at;
    if (left) {
        memcpy(block, data.ptr + at, left);
    }
    block[left] = 0x80;
    size_t end = left < 56 ? 64 : 128;
    uint64_t bits = (uint64_t)data.len * 8;
    for (size_t i = 0; i < 8; i++) {
        block[end - 1 - i] = (unsigned char)(bits >> (8 * i));
    }
    for (size_t i = 0; i < end; i += 64) {
        mix(h, block + i);
    }
    for (size_t i = 0; i < MU_SHA1_LEN; i++) {
        ret[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
    }
}

void mu_shake_accept(const char key[MU_SHAKE_KEY_LEN + 1], char ret[MU_SHAKE_ACCEPT_LEN + 1])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11",
                      words[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char text[MU_SHAKE_KEY_LEN + sizeof guid - 1];
    unsigned char sum[MU_SHA1_LEN + 1] = {0};
    memcpy(text, key, MU_SHAKE_KEY_LEN);
    memcpy(text + MU_SHAKE_KEY_LEN, guid, sizeof guid - 1);
    mu_sha1(mu_bytes_of(text, sizeof text), sum);
    for (size_t i = 0; i < 7; i++) { /* 20 bytes: the last group has two, and a padding */
        const unsigned char *p = sum + 3 * i;
        uint32_t v = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        for (size_t k = 0; k < 4; k++) {
            ret[4 * i + k] = words[v >> (18 - 6 * k) & 63];
        }
    }
    ret[MU_SHAKE_ACCEPT_LEN - 1] = '=';
    ret[MU_SHAKE_ACCEPT_LEN] = 0;
}

/* --- the answer --- */

static bool has_word(mu_bytes list, mu_bytes word)
{
    while (list.ptr) {
        if (mu_bytes_eq_nocase(mu_bytes_trim(mu_bytes_split(&list, ',')), word)) {
            return true;
        }
    }
    return false;
}

static int read_status(mu_bytes line, int *ret)
{
    mu_bytes version = MU_B("HTTP/1.1 ");
    int64_t status;
    if (line.len < version.len + 3 || !mu_bytes_starts(line, version) ||
        mu_bytes_i64(mu_bytes_of(line.ptr + version.len, 3), &status) < 0 || status < 100 ||
        status > 599 || (line.len > version.len + 3 && line.ptr[version.len + 3] != ' ')) {
        return MU_E_PROTOCOL;
    }
    *ret = (int)status;
    return 0;
}

struct seen {
    unsigned upgrade, connection, accept, more;
};

static int read_header(mu_bytes line, const char *accept, struct seen *s)
{
    ptrdiff_t colon = mu_bytes_find_char(line, ':');
    if (colon <= 0) {
        return MU_E_PROTOCOL;
    }
    mu_bytes name = mu_bytes_head(line, (size_t)colon),
             value = mu_bytes_trim(mu_bytes_from(line, (size_t)colon + 1));
    if (mu_bytes_eq_nocase(name, MU_B("Upgrade"))) {
        s->upgrade += has_word(value, MU_B("websocket")) ? 1 : 2;
    } else if (mu_bytes_eq_nocase(name, MU_B("Connection"))) {
        s->connection += has_word(value, MU_B("upgrade")) ? 1 : 0;
    } else if (mu_bytes_eq_nocase(name, MU_B("Sec-WebSocket-Accept"))) {
        s->accept += mu_bytes_is(value, accept) ? 1 : 2;
    } else if (mu_bytes_eq_nocase(name, MU_B("Sec-WebSocket-Extensions")) ||
               mu_bytes_eq_nocase(name, MU_B("Sec-WebSocket-Protocol"))) {
        s->more += value.len ? 1 : 0; /* nothing of that was offered */
    }
    return 0;
}

int mu_shake_read(mu_bytes raw, const char *accept, struct mu_shake_answer *ret)
{
    ptrdiff_t end = mu_bytes_find(mu_bytes_head(raw, MU_SHAKE_HEAD_MAX), MU_B("\r\n\r\n"));
    struct seen seen = {0};
    bool first = true;
    if (end < 0) {
        return raw.len >= MU_SHAKE_HEAD_MAX ? MU_E_TOO_LARGE : 0;
    }
    mu_bytes rest = mu_bytes_head(raw, (size_t)end);
    while (rest.ptr) {
        mu_bytes line = mu_bytes_split(&rest, '\n');
        if (line.len && line.ptr[line.len - 1] == '\r') {
            line.len--;
        }
        int r = first ? read_status(line, &ret->status) : read_header(line, accept, &seen);
        if (r < 0) {
            return r;
        }
        first = false;
    }
    ret->length = (size_t)end + 4;
    bool upgraded = seen.upgrade == 1 && seen.connection >= 1 && seen.accept == 1 && seen.more == 0;
    return ret->status != 101 || upgraded ? 1 : MU_E_PROTOCOL;
}
