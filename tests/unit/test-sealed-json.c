#include "util/sealed-json.h"

#include <errno.h>
#include <xxhash.h>

#include "temporary.h"
#include "util/file.h"

#define WITH_OBJECT(object) CLEANUP(json_decrefp) json_t *object = \
        json_pack("{s:s, s:i, s:[s, s], s:n}", "format", "test", "size", 7, "list", "ä", "b", "nothing")

static void what_was_sealed_is_read_again_in_order(void) {
        WITH_OBJECT(object);
        CLEANUP(json_decrefp) json_t *again = NULL;
        CLEANUP(freep) char *text = NULL;
        Reason reason = REASON_INIT;
        size_t length;

        CHECK_INT(sealed_json_dump(object, &text, &length, &reason), 0);
        CHECK_INT(length, strlen(text));
        CHECK(strncmp(text, "{\n    \"format\": \"test\",\n    \"size\": 7,\n", 38) == 0);
        CHECK_INT(sealed_json_parse(text, length, &again, &reason), 0);
        CHECK_INT(json_object_del(again, "checksum"), 0);
        CHECK(json_equal(object, again));
}

static void an_empty_object_can_be_sealed(void) {
        CLEANUP(json_decrefp) json_t *object = json_object();
        CLEANUP(json_decrefp) json_t *again = NULL;
        CLEANUP(freep) char *text = NULL;
        size_t length;

        CHECK_INT(sealed_json_dump(object, &text, &length, NULL), 0);
        CHECK_INT(sealed_json_parse(text, length, &again, NULL), 0);
        CHECK_INT(json_object_size(again), 1);
        CHECK_INT(sealed_json_dump(again, &text, &length, NULL), -EINVAL);
}

static void every_flipped_bit_is_noticed(void) {
        WITH_OBJECT(object);
        CLEANUP(freep) char *text = NULL;
        json_t *again = NULL;
        size_t length;

        CHECK_INT(sealed_json_dump(object, &text, &length, NULL), 0);
        for (size_t bit = 0; bit < length * 8; bit++) {
                text[bit / 8] = (char) (text[bit / 8] ^ (1 << bit % 8));
                CHECK_INT(sealed_json_parse(text, length, &again, NULL), -EBADMSG);
                text[bit / 8] = (char) (text[bit / 8] ^ (1 << bit % 8));
        }
        CHECK(!again);
}

static void every_truncation_and_addition_is_noticed(void) {
        WITH_OBJECT(object);
        CLEANUP(freep) char *text = NULL;
        char longer[1000];
        json_t *again = NULL;
        Reason reason = REASON_INIT;
        size_t length;

        CHECK_INT(sealed_json_dump(object, &text, &length, NULL), 0);
        for (size_t shorter = 0; shorter < length; shorter++) {
                CHECK_INT(sealed_json_parse(text, shorter, &again, &reason), -EBADMSG);
                CHECK_INT(sealed_json_parse(text + length - shorter, shorter, &again, &reason), -EBADMSG);
        }
        memcpy(longer, text, length);
        longer[length] = '\n';
        CHECK_INT(sealed_json_parse(longer, length + 1, &again, &reason), -EBADMSG);
        CHECK_SAYS(reason, "does not end with its checksum");
        CHECK(!again);
}

static void a_good_seal_does_not_excuse_bad_json(void) {
        static const char *const bodies[] = {
                "{\n    \"a\": 1,\n    \"a\": 2,\n",
                "{\n    \"checksum\": 1,\n",
                "[\n",
                "{\n    \"a\": \"\xff\",\n",
                "{\n    \"a\": 99999999999999999999,\n",
        };

        for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
                json_t *again = NULL;
                char forged[200];

                snprintf(forged, sizeof forged, "%s    \"checksum\": \"xxh3-64:%016llx\"\n}\n", bodies[i],
                         (unsigned long long) XXH3_64bits(bodies[i], strlen(bodies[i])));
                CHECK_INT(sealed_json_parse(forged, strlen(forged), &again, NULL), -EBADMSG);
        }
}

static void files_are_sealed_and_reasons_name_them(void) {
        WITH_DIRECTORY(t);
        WITH_OBJECT(object);
        CLEANUP(json_decrefp) json_t *again = NULL;
        Reason reason = REASON_INIT;

        CHECK_INT(sealed_json_create(t.fd, "a.json", object, &reason), 0);
        CHECK_INT(sealed_json_create(t.fd, "a.json", object, &reason), -EEXIST);
        CHECK_INT(sealed_json_replace(t.fd, "a.json", object, &reason), 0);
        CHECK_INT(sealed_json_read(t.fd, "a.json", &again, &reason), 0);
        CHECK_INT(create_file(t.fd, "b.json", "{}", 2, &reason), 0);
        CHECK_INT(sealed_json_read(t.fd, "b.json", &again, &reason), -EBADMSG);
        CHECK_SAYS(reason, "b.json is damaged");
        CHECK_INT(sealed_json_read(t.fd, "c.json", &again, &reason), -ENOENT);
        CHECK_SAYS(reason, "c.json");
}

static void members_of_the_wrong_kind_are_named(void) {
        WITH_OBJECT(object);
        Reason reason = REASON_INIT;
        const char *text = "before";
        uint64_t size = 1;
        json_t *list;

        CHECK_INT(json_take_size(object, "size", &size, &reason), 0);
        CHECK_INT(size, 7);
        CHECK_INT(json_take_size(object, "format", &size, &reason), -EBADMSG);
        CHECK_SAYS(reason, "\"format\" is no number");
        CHECK_INT(json_object_set_new(object, "size", json_integer(-1)), 0);
        CHECK_INT(json_take_size(object, "size", &size, &reason), -EBADMSG);
        CHECK_SAYS(reason, "\"size\" is negative");
        CHECK_INT(size, 7);
        CHECK_INT(json_take_string(object, "nothing", &text, &reason), -EBADMSG);
        CHECK_INT(json_take_string(object, "none", &text, &reason), -EBADMSG);
        CHECK_SAYS(reason, "\"none\" is missing");
        CHECK_TEXT(text, "before");
        CHECK_INT(json_take_optional_string(object, "nothing", &text, &reason), 0);
        CHECK(!text);
        CHECK_INT(json_take_optional_string(object, "size", &text, &reason), -EBADMSG);
        CHECK_INT(json_take_array(object, "list", &list, &reason), 0);
        CHECK_INT(json_array_size(list), 2);
}

static void any_text_can_be_kept(void) {
        CLEANUP(json_decrefp) json_t *good = json_text("ä");
        CLEANUP(json_decrefp) json_t *bad = json_text("cut \xc3");

        CHECK_TEXT(json_string_value(good), "ä");
        CHECK_TEXT(json_string_value(bad), "cut ?");
}

int main(void) {
        RUN(what_was_sealed_is_read_again_in_order);
        RUN(an_empty_object_can_be_sealed);
        RUN(every_flipped_bit_is_noticed);
        RUN(every_truncation_and_addition_is_noticed);
        RUN(a_good_seal_does_not_excuse_bad_json);
        RUN(files_are_sealed_and_reasons_name_them);
        RUN(members_of_the_wrong_kind_are_named);
        RUN(any_text_can_be_kept);
        return unit_result();
}
