#include "../unit.h"

#include <stdio.h>

#include "base/encode.h"
#include "base/err.h"
#include "runner/ws_shake.h"

static void sha1_gives_the_digests_of_the_standard(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hex;
    } cases[] = {
        {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
        {"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
        {"The quick brown fox jumps over the lazy dog", "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        unsigned char sum[MU_SHA1_LEN];
        char hex[2 * MU_SHA1_LEN + 1];
        mu_sha1(mu_str(cases[i].text), sum);
        mu_hex(sum, sizeof sum, hex);
        assert_string_equal(hex, cases[i].hex);
    }
}

static void sha1_is_right_around_the_ends_of_blocks(void **state)
{
    (void)state;
    static const char *const of_a[] = {/* python3: hashlib.sha1(b"a" * n) */
                                       "c1c8bbdc22796e28c0e15163d20899b65621d65a",  /* 55 */
                                       "c2db330f6083854c99d4b5bfb6e8f29f201be699",  /* 56 */
                                       "03f09f5b158a7a8cdad920bddc29b81c18a551f5",  /* 63 */
                                       "0098ba824b5c16427bd7a1122a5a442a25ec644d",  /* 64 */
                                       "11655326c708d70319be2610e8a57d9a5b959d3b"}; /* 65 */
    static const size_t n[] = {55, 56, 63, 64, 65};
    char text[80];
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < MU_ARRAY_LEN(n); i++) {
        unsigned char sum[MU_SHA1_LEN];
        char hex[2 * MU_SHA1_LEN + 1];
        mu_sha1(mu_bytes_of(text, n[i]), sum);
        mu_hex(sum, sizeof sum, hex);
        assert_string_equal(hex, of_a[i]);
    }
}

static void the_answer_to_a_key_is_that_of_the_rfc(void **state)
{
    (void)state;
    char accept[MU_SHAKE_ACCEPT_LEN + 1];
    mu_shake_accept("dGhlIHNhbXBsZSBub25jZQ==", accept);
    assert_string_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define GOOD                                                                                       \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, "           \
    "Upgrade\r\n"
#define KEY "Sec-WebSocket-Accept: " ACCEPT "\r\n"

static void a_proper_upgrade_is_taken_and_nothing_else(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int result, status;
    } cases[] = {
        {GOOD KEY "\r\n", 1, 101},
        {"HTTP/1.1 101\r\nupgrade:websocket\r\nconnection:upgrade\r\nsec-websocket-accept:" ACCEPT
         "\r\n\r\n",
         1, 101},
        {"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", 1, 410},
        {"HTTP/1.1 503 x\r\n\r\nbody", 1, 503},
        {GOOD KEY, 0, 0},
        {"", 0, 0},
        {"HTTP/1.1 101 x\r\n\r\n", MU_E_PROTOCOL, 0},
        {GOOD "\r\n", MU_E_PROTOCOL, 0},
        {GOOD "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOO=\r\n\r\n", MU_E_PROTOCOL, 0},
        {GOOD KEY KEY "\r\n", MU_E_PROTOCOL, 0},
        {GOOD KEY "Upgrade: h2c\r\n\r\n", MU_E_PROTOCOL, 0},
        {GOOD KEY "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", MU_E_PROTOCOL, 0},
        {GOOD KEY "Sec-WebSocket-Protocol: x\r\n\r\n", MU_E_PROTOCOL, 0},
        {GOOD KEY "no header\r\n\r\n", MU_E_PROTOCOL, 0},
        {GOOD KEY ": empty\r\n\r\n", MU_E_PROTOCOL, 0},
        {"HTTP/1.0 200 OK\r\n\r\n", MU_E_PROTOCOL, 0},
        {"HTTP/1.1 20\r\n\r\n", MU_E_PROTOCOL, 0},
        {"HTTP/1.1 2000 x\r\n\r\n", MU_E_PROTOCOL, 0},
        {"HTTP/1.1 -10 x\r\n\r\n", MU_E_PROTOCOL, 0},
        {"HTTP/1.1 600 x\r\n\r\n", MU_E_PROTOCOL, 0},
        {"SSH-2.0-x\r\n\r\n", MU_E_PROTOCOL, 0},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        struct mu_shake_answer a = {0};
        int r = mu_shake_read(mu_str(cases[i].text), ACCEPT, &a);
        if (r != cases[i].result || (r == 1 && a.status != cases[i].status)) {
            fail_msg("%s: %d, %d", cases[i].text, r, a.status);
        }
    }
}

static void what_follows_the_head_is_left_alone(void **state)
{
    (void)state;
    struct mu_shake_answer a;
    assert_int_equal(mu_shake_read(MU_B(GOOD KEY "\r\n\x81\x02hi"), ACCEPT, &a), 1);
    assert_int_equal(a.length, strlen(GOOD KEY "\r\n"));
}

static void a_head_without_an_end_is_given_up(void **state)
{
    (void)state;
    static char text[MU_SHAKE_HEAD_MAX + 100];
    struct mu_shake_answer a;
    memset(text, 'x', sizeof text);
    assert_int_equal(mu_shake_read(mu_bytes_of(text, MU_SHAKE_HEAD_MAX - 1), ACCEPT, &a), 0);
    assert_int_equal(mu_shake_read(mu_bytes_of(text, sizeof text), ACCEPT, &a), MU_E_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha1_gives_the_digests_of_the_standard),
        cmocka_unit_test(sha1_is_right_around_the_ends_of_blocks),
        cmocka_unit_test(the_answer_to_a_key_is_that_of_the_rfc),
        cmocka_unit_test(a_proper_upgrade_is_taken_and_nothing_else),
        cmocka_unit_test(what_follows_the_head_is_left_alone),
        cmocka_unit_test(a_head_without_an_end_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
