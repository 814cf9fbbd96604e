#include "formats/virtnbdbackup/archive.h"

#include <errno.h>
#include <string.h>
#include <unzip.h>

#include "formats/virtnbdbackup/window.h"
#include "util/bytes.h"
#include "util/text.h"

#define MEMBERS_MAX 4096u
#define NAME_LENGTH_MAX 1024u
#define FLAG_ENCRYPTED 1u

/* What the library reads from: it asks for single bytes. */
typedef struct ZipReader {
        ByteStore *bytes;
        Window window;
        uint64_t at;
        bool failed;
} ZipReader;

static void *stream_open_file(void *opaque, const void *name, int mode) {
        return opaque;
}

static uLong stream_read_bytes(void *opaque, void *file, void *buffer, uLong size) {
        ZipReader *stream = file;
        uLong done = 0;

        size = (uLong) min_u64(size, byte_store_size(stream->bytes) - stream->at);
        while (done < size) {
                size_t part = (size_t) min_u64(size - done, WINDOW_SIZE);
                const unsigned char *bytes;

                if (window_get(&stream->window, stream->bytes, stream->at, part, UINT64_MAX, &bytes, NULL) < 0) {
                        stream->failed = true;
                        break;
                }
                memcpy((unsigned char *) buffer + done, bytes, part);
                stream->at += part;
                done += part;
        }
        return done;
}

static ZPOS64_T stream_tell(void *opaque, void *file) {
        return ((ZipReader *) file)->at;
}

static long stream_seek(void *opaque, void *file, ZPOS64_T offset, int origin) {
        ZipReader *stream = file;
        uint64_t size = byte_store_size(stream->bytes);
        uint64_t from = origin == ZLIB_FILEFUNC_SEEK_END ? size : origin == ZLIB_FILEFUNC_SEEK_CUR ? stream->at : 0, to;

        if (__builtin_add_overflow(from, offset, &to) || to > size)
                return -1;
        stream->at = to;
        return 0;
}

static int stream_close_file(void *opaque, void *file) {
        return 0;
}

static int stream_test_error(void *opaque, void *file) {
        return ((ZipReader *) file)->failed;
}

static void close_zip(unzFile *zip) {
        if (*zip)
                (void) unzClose(*zip);
}

static struct timespec member_time(const unz_file_info64 *info) {
        struct tm tm = {
                .tm_year = (int) info->tmu_date.tm_year - 1900,
                .tm_mon = (int) info->tmu_date.tm_mon,
                .tm_mday = (int) info->tmu_date.tm_mday,
                .tm_hour = (int) info->tmu_date.tm_hour,
                .tm_min = (int) info->tmu_date.tm_min,
                .tm_sec = (int) info->tmu_date.tm_sec,
                .tm_isdst = -1,
        };
        time_t seconds = mktime(&tm);

        return (struct timespec){ .tv_sec = seconds > 0 ? seconds : 0 };
}

static int load_member(unzFile zip, const char *archive, uint64_t size, ArchiveMember *ret, Reason *reterr) {
        char name[NAME_LENGTH_MAX + 1] = "";
        ArchiveMember member;
        unz_file_info64 info;

        if (unzGetCurrentFileInfo64(zip, &info, name, NAME_LENGTH_MAX, NULL, 0, NULL, 0) != UNZ_OK ||
            info.size_filename > NAME_LENGTH_MAX)
                return fail(reterr, -EBADMSG, "%s is damaged: its directory cannot be read", archive);
        member = (ArchiveMember) {
                .length = info.uncompressed_size,
                .crc = (uint32_t) info.crc,
                .time = member_time(&info),
                .stored = info.compression_method == 0 && !(info.flag & FLAG_ENCRYPTED),
        };
        if (member.stored) {
                if (unzOpenCurrentFile2(zip, NULL, NULL, 1) != UNZ_OK)
                        return fail(reterr, -EBADMSG, "%s is damaged: its member %s is not where it should be", archive,
                                    name);
                member.offset = unzGetCurrentFileZStreamPos64(zip);
                (void) unzCloseCurrentFile(zip);
                if (info.compressed_size != info.uncompressed_size || member.offset > size ||
                    member.length > size - member.offset)
                        return fail(reterr, -EBADMSG, "%s is damaged: its member %s passes its end", archive, name);
        }
        member.name = strdup(name);
        if (!member.name)
                return fail_oom(reterr);
        *ret = member;
        return 0;
}

int archive_read(ByteStore *bytes, Archive *ret, Reason *reterr) {
        const char *name = byte_store_name(bytes);
        CLEANUP(archive_clear) Archive archive = { 0 };
        CLEANUP(close_zip) unzFile zip = NULL;
        ZipReader stream = { .bytes = bytes };
        zlib_filefunc64_def functions = {
                .zopen64_file = stream_open_file,
                .zread_file = stream_read_bytes,
                .ztell64_file = stream_tell,
                .zseek64_file = stream_seek,
                .zclose_file = stream_close_file,
                .zerror_file = stream_test_error,
                .opaque = &stream,
        };
        int at, rc;

        zip = unzOpen2_64("", &functions);
        if (!zip)
                return fail(reterr, -EBADMSG, "%s is no zip file, or has been cut off", name);
        for (at = unzGoToFirstFile(zip); at == UNZ_OK; at = unzGoToNextFile(zip)) {
                ArchiveMember *grown;

                if (archive.count == MEMBERS_MAX)
                        return fail(reterr, -EBADMSG, "%s has more than %u members", name, MEMBERS_MAX);
                grown = reallocarray(archive.members, archive.count + 1, sizeof *grown);
                if (!grown)
                        return fail_oom(reterr);
                archive.members = grown;
                rc = load_member(zip, name, byte_store_size(bytes), &archive.members[archive.count], reterr);
                if (rc < 0)
                        return rc;
                archive.count++;
        }
        if (at != UNZ_END_OF_LIST_OF_FILE)
                return fail(reterr, -EBADMSG, "%s is damaged: its directory cannot be read", name);
        *ret = archive;
        archive = (Archive) { 0 };
        return 0;
}

void archive_clear(Archive *archive) {
        for (size_t i = 0; i < archive->count; i++)
                free(archive->members[i].name);
        free(archive->members);
        *archive = (Archive) { 0 };
}

const ArchiveMember *archive_find(const Archive *archive, const char *name) {
        for (size_t i = 0; i < archive->count; i++)
                if (strcmp(archive->members[i].name, name) == 0)
                        return &archive->members[i];
        return NULL;
}

/* A part of another store. */
typedef struct PartStore {
        ByteStore store;
        ByteStore *whole;
        uint64_t start;
} PartStore;

static int part_read(ByteStore *store, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        PartStore *part = (PartStore *) store;

        return byte_store_read(part->whole, buffer, length, part->start + offset, reterr);
}

static void part_free(ByteStore *store) {
        PartStore *part = (PartStore *) store;

        byte_store_free(part->whole);
        free(part->store.name);
        free(part);
}

static const ByteStoreOps part_ops = { .read = part_read, .free = part_free };

int archive_open(ByteStore *bytes, const ArchiveMember *member, ByteStore **ret, Reason *reterr) {
        CLEANUP(byte_store_freep) ByteStore *whole = bytes;
        PartStore *part;
        char *name;

        if (!member->stored)
                return fail(reterr, -ENOTSUP, "%s: its member %s is compressed or encrypted: unpack it first",
                            byte_store_name(whole), member->name);
        part = calloc(1, sizeof *part);
        if (!part || text_format(&name, "%s: %s", byte_store_name(whole), member->name) < 0) {
                free(part);
                return fail_oom(reterr);
        }
        *part = (PartStore) {
                .store = { .ops = &part_ops, .size = member->length, .name = name },
                .whole = STEAL_PTR(whole),
                .start = member->offset,
        };
        *ret = &part->store;
        return 0;
}
