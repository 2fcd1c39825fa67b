/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_FAULTS_MODEL_H
#define BDRV_TEST_FAULTS_MODEL_H

/*
 * What a guest may find on its disk: for each sector of 512 bytes the contents that are possible - now, and
 * after a power loss. A change that failed may or may not have happened, sector by sector.
 */

#include <bdrv/types.h>

typedef struct Model Model;

/** model_new() - a disk of @size, with room to grow to @room; what is flushed is @content, zeroes behind it */
Model *model_new(int64_t room, int64_t size, const uint8_t *content);
void model_free(Model *model);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Model, model_free)

int64_t model_size(const Model *model);
/** model_resize() - a disk that grows reads as zeroes there */
void model_resize(Model *model, int64_t size);

/** model_change() - [offset, +bytes) becomes @data, @surely or maybe */
void model_change(Model *model, int64_t offset, int64_t bytes, const uint8_t *data, bool surely);
/** model_now() - the content, where it is known: what was read last, and sure changes since */
void model_now(const Model *model, int64_t offset, int64_t bytes, uint8_t *out);

/** model_flushed() - what is there now survives a power loss */
void model_flushed(Model *model);
/** model_flushed_range() - whole sectors of it */
void model_flushed_range(Model *model, int64_t offset, int64_t bytes);
/** model_lost() - changes since the last flush may be gone: the image was closed with an error */
void model_lost(Model *model);

/**
 * model_wrong_sector() - compare @content, from offset 0
 * @after_loss: with what a power loss may leave
 * Returns: the first sector that is not one of what is possible, -1: all are.
 */
int64_t model_wrong_sector(const Model *model, const uint8_t *content, int64_t bytes, bool after_loss);
/** model_learn() - @content was read: from now on it is known */
void model_learn(Model *model, const uint8_t *content, int64_t bytes);

#endif
