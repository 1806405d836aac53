/**
 * A thin client: a producer that batches and stores each message once, and a consumer that commits what is
 * processed. Both continue after a break. It begins with {@link io.trunkline.client.TrunklineClient}.
 */
package io.trunkline.client;
