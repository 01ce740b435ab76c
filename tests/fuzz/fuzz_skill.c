/* A SKILL.md of any repository. */
#include "base/encode.h"
#include "fuzz.h"
#include "worker/skill.h"

static void is_clean(mu_bytes t, size_t max, bool one_line)
{
    MU_CHECK(t.ptr && t.len <= max && mu_utf8_valid(t));
    for (size_t i = 0; i < t.len; i++) {
        unsigned char c = (unsigned char)t.ptr[i];
        MU_CHECK(c != 0x7f && (c >= 0x20 || (!one_line && (c == '\n' || c == '\t'))));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mu_arena a;
    struct mu_skill_text s;
    mu_arena_init(&a, 8 << 20);
    if (mu_skill_read(&a, MU_B("skills/x/SKILL.md"), fuzz_bytes(data, size), &s) == 0) {
        MU_CHECK(s.name.len > 0);
        is_clean(s.name, MU_SKILL_NAME, true);
        is_clean(s.description, MU_SKILL_DESCRIPTION, false);
        is_clean(s.prompt, MU_SKILL_PROMPT, false);
    }
    mu_arena_fini(&a);
    return 0;
}
