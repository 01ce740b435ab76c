#include "../unit.h"

#include "runner/secrets.h"

static void expect(const char *name, const char *value, bool given, bool want)
{
    if (mu_secret_worth(mu_str(name), mu_str(value), given) != want) {
        fail_msg("%s=%s (%s)", name, value, given ? "of the user" : "of the environment");
    }
}

static void what_the_user_gave_is_one_unless_anybody_could_guess_it(void **state)
{
    (void)state;
    const char *const hidden[] = {"k7Qz-w9-xyB4",
                                  "correct horse battery",
                                  "0123456789abcdef",
                                  "1234567890123456",
                                  "abcdefghijklmnop",
                                  "https://user:word@host.example/x",
                                  "https://host.example/hook?x=y",
                                  "postgres://host/db"};
    const char *const shown[] = {
        "",           "short77",   "production",        "eu-central",   "hi there",
        "3.11.4.5.6", "8080,8081", "/usr/local/lib/x1", "./relative/1", "https://host.example/v1"};
    for (size_t i = 0; i < MU_ARRAY_LEN(hidden); i++) {
        expect("ANY", hidden[i], true, true);
        expect("ANY", hidden[i], false, false);
        expect("SOME_TOKEN", hidden[i], false, true);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(shown); i++) {
        expect("ANY", shown[i], true, false);
    }
}

static void a_name_that_says_so_hides_words_too(void **state)
{
    (void)state;
    const char *const names[] = {"DB_PASSWORD", "api_key",    "GhToken",
                                 "MY_SECRET",   "BASIC_AUTH", "AWS_CREDS",
                                 "SENTRY_DSN",  "a_cookie",   "PRIVATE_THING"};
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        expect(names[i], "passwordy", true, true);
        expect(names[i], "passwordy", false, true);
        expect(names[i], "short77", true, false);
    }
    expect("SSH_AUTH_SOCK", "/run/user/1000/agent.sock", false, false);
    expect("KEY_FILE", "/etc/keys/mine.pem", true, false);
    expect("BASE64_KEY", "/9j4AAQSkZJRgABAQEASABIAAD2wBDAAMCAgMCAgMDAwME", true, true);
    expect("GIT_CONFIG_KEY_0", "protocol.file.allow", false, false);
    expect("OZ_ENV_SETUP_COMMANDS", "make all keys", false, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_user_gave_is_one_unless_anybody_could_guess_it),
        cmocka_unit_test(a_name_that_says_so_hides_words_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
